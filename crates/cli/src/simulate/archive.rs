//! A log file as bytes, whether it is packed or not. What it is, its first bytes tell, not its name.
//! Invariant: memory stays bounded however much an archive unpacks to.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Unpacked bytes, ready to be cut into lines.
pub(super) type Bytes = Box<dyn BufRead + Send>;

/// Opens a file; `read` counts what was taken from it as stored.
pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> io::Result<Bytes> {
    if std::fs::metadata(path)?.is_dir() {
        let text = "this is a directory; name the files in it (`--log DIR/*`)";
        return Err(io::Error::other(text));
    }
    unpack(File::open(path)?, read)
}

/// Unpacks what the first bytes say.
pub(super) fn unpack(source: impl Read + Send + 'static, read: &Arc<AtomicU64>) -> io::Result<Bytes> {
    let counted = Counted { source, read: Arc::clone(read) };
    let mut source = BufReader::with_capacity(BUFFER, counted);
    let mut head = Vec::new();
    // A pipe may give fewer bytes at first; what was taken for the look is put in front again.
    (&mut source).take(6).read_to_end_bounded(&mut head)?;
    let packing = packing(&head)?;
    let whole = io::Cursor::new(head).chain(source);
    Ok(match packing {
        Packing::None => Box::new(BufReader::with_capacity(BUFFER, whole)),
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(whole))),
        Packing::Zstandard => Box::new(BufReader::with_capacity(BUFFER, Zstandard::new(whole))),
    })
}

/// Reading to the end of something that its type already bounds.
trait ReadBounded {
    fn read_to_end_bounded(self, to: &mut Vec<u8>) -> io::Result<usize>;
}

impl<R: Read> ReadBounded for io::Take<R> {
    fn read_to_end_bounded(mut self, to: &mut Vec<u8>) -> io::Result<usize> {
        #[expect(clippy::disallowed_methods, reason = "limited by take")]
        self.read_to_end(to)
    }
}

enum Packing {
    None,
    Gzip,
    Zstandard,
}

fn packing(head: &[u8]) -> io::Result<Packing> {
    let foreign = |name: &str, command: &str| {
        let text =
            format!("packed with {name}; unpack it: `{command} FILE | threatlockdown simulate --log -`");
        Err(io::Error::other(text))
    };
    match head {
        [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
        // A frame, or one of the skippable frames that may come before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Packing::Zstandard),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => foreign("xz", "xz -dc"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => foreign("bzip2", "bzip2 -dc"),
        [b'P', b'K', 3, 4, ..] => foreign("zip", "unzip -p"),
        _ => Ok(Packing::None),
    }
}

struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// All frames of a Zstandard file; the decoder itself knows one at a time.
struct Zstandard<R> {
    source: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Zstandard<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), within: false }
    }

    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let (stored, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if stored.is_some() && stored != found {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the checksum of the archive does not match",
            ));
        }
        self.within = false;
        Ok(())
    }
}

impl<R: BufRead> Read for Zstandard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                if !self.begin()? {
                    return Ok(0);
                }
                self.within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.end()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn unpacked(stored: &[u8]) -> io::Result<Vec<u8>> {
        let read = Arc::default();
        let bytes = unpack(io::Cursor::new(stored.to_vec()), &read)?;
        let mut text = Vec::new();
        bytes.take(1 << 24).read_to_end_bounded(&mut text)?;
        assert_eq!(read.load(Ordering::Relaxed), stored.len() as u64);
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    #[test]
    fn every_packing_gives_the_same_bytes_also_in_several_parts() {
        let text = b"Nov 22 10:00:00 web01 sshd[1]: one\n".repeat(20_000);
        let (first, second) = text.split_at(300_001);
        assert_eq!(unpacked(&text).unwrap(), text);
        assert_eq!(unpacked(&[gzip(first), gzip(second)].concat()).unwrap(), text);
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
        let frames = [skipped.clone(), zstandard(first), skipped, zstandard(second)].concat();
        assert_eq!(unpacked(&frames).unwrap(), text);
        for short in [&b""[..], b"a", b"\x1f"] {
            assert_eq!(unpacked(short).unwrap(), short);
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error_and_what_cannot_be_unpacked_says_how() {
        let text = b"Nov 22 10:00:00 web01 sshd[1]: one\n".repeat(2_000);
        for mut packed in [gzip(&text), zstandard(&text)] {
            packed.truncate(packed.len() - 3);
            assert!(unpacked(&packed).is_err());
        }
        let why = unpacked(b"\xfd7zXZ\0\0\0").unwrap_err().to_string();
        assert!(why.contains("`xz -dc FILE | threatlockdown simulate --log -`"), "{why}");
    }
}
