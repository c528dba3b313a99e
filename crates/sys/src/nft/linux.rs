//! The firewall over a netlink socket.
//!
//! Invariant: an answer is matched to its request by sequence number; answers to an earlier request that timed
//! out are skipped.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::message::{
    self, Batch, Change, Finished, GETGEN, GETSETELEM, GETTABLE, Key, NEWSETELEM, Set, TABLE_NAME,
};
use super::{Element, Net, NftError, Spot};
use crate::netlink::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, Socket, messages};

/// The kernel answers while it works; this is for a machine that hardly runs.
const ANSWER: Duration = Duration::from_secs(10);
/// Elements in one transaction. It bounds the kernel's memory and lock time: about 2 MiB and 50 ms.
const TRANSACTION: usize = 16_384;

/// Questions that are sent together; their answers fit into the receive buffer.
const QUESTIONS: usize = 256;

/// How often a listing is tried until two agree.
const LISTINGS: usize = 16;

type Result<T> = std::result::Result<T, NftError>;

/// A connection to the kernel's firewall, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    sequence: u32,
}

impl Firewall {
    /// Connects and asks whether nf_tables is there and may be changed.
    pub fn open() -> Result<Self> {
        let socket =
            Socket::open(Some(rustix::net::netlink::NETFILTER), 0).map_err(|e| match e.raw_os_error() {
                Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => NftError::Missing,
                Some(libc::EPERM | libc::EACCES) => NftError::Permission,
                _ => NftError::Io(e),
            })?;
        socket.grow_receive_buffer(4 << 20);
        let mut firewall = Self { socket, sequence: 1 };
        match firewall.ask(GETGEN, 0, "ask for the generation", |_| {}, |_, _| {}) {
            Ok(()) => Ok(firewall),
            // An unknown subsystem: the module is neither built in nor loadable.
            Err(NftError::Refused { errno: libc::EINVAL | libc::EOPNOTSUPP, .. }) => Err(NftError::Missing),
            Err(e) => Err(e),
        }
    }

    /// This connection's name in the kernel, for [`super::Monitor::open`] to ignore.
    #[must_use]
    pub fn port_id(&self) -> u32 {
        self.socket.port()
    }

    /// Makes the table, its sets, its chain and rules as they should be; what is in the sets stays.
    pub fn ensure(&mut self, table: &str) -> Result<()> {
        self.transact(|batch| batch.ensure(table))
    }

    /// Whether the table is there.
    pub fn exists(&mut self, table: &str) -> Result<bool> {
        let mut found = false;
        let answer =
            self.ask(GETTABLE, 0, "ask for the table", |w| w.text(TABLE_NAME, table), |_, _| found = true);
        not_found_is(answer.map(|()| found), false)
    }

    /// Blocks addresses, each for its lease or until removed. One already blocked gets the new lease, longer or
    /// shorter. If one is given twice, the later counts. At most 16,384 go into one transaction; more go in several,
    /// and an error then leaves the earlier ones done.
    pub fn block(&mut self, table: &str, entries: &[(IpAddr, Option<Duration>)]) -> Result<()> {
        let spots: Vec<_> = entries.iter().map(|(address, lease)| (Spot::from(*address), *lease)).collect();
        self.block_spots(table, &spots)
    }

    /// Like [`Firewall::block`], also for single ports.
    pub fn block_spots(&mut self, table: &str, entries: &[(Spot, Option<Duration>)]) -> Result<()> {
        self.replace(table, &unique(entries), Set::of)
    }

    /// Like [`Firewall::block_spots`] for what is most likely not blocked yet: a third of the work. Where it is, the
    /// kernel undoes the transaction, which takes it some ten milliseconds, and it is done the other way.
    pub fn block_new(&mut self, table: &str, entries: &[(Spot, Option<Duration>)]) -> Result<()> {
        for chunk in unique(entries).chunks(TRANSACTION) {
            match self.change(table, chunk, Set::of, &[Change::Create]) {
                Err(NftError::Refused { errno: libc::EEXIST, .. }) => self.replace(table, chunk, Set::of)?,
                other => other?,
            }
        }
        Ok(())
    }

    /// Like [`Firewall::block`] for networks. A network that overlaps another one blocked is refused (`EEXIST`).
    pub fn block_nets(&mut self, table: &str, entries: &[(Net, Option<Duration>)]) -> Result<()> {
        let unique: BTreeMap<_, _> = entries.iter().copied().collect();
        let unique: Vec<_> = unique.into_iter().collect();
        self.replace(table, &unique, Set::of_net)
    }

    /// Lifts the blocks of addresses; one that is not blocked is no error.
    pub fn unblock(&mut self, table: &str, addresses: &[IpAddr]) -> Result<()> {
        let spots: Vec<_> = addresses.iter().map(|address| Spot::from(*address)).collect();
        self.unblock_spots(table, &spots)
    }

    /// Like [`Firewall::unblock`], also for single ports.
    pub fn unblock_spots(&mut self, table: &str, spots: &[Spot]) -> Result<()> {
        let spots: Vec<_> = spots.iter().map(|spot| (*spot, None)).collect();
        self.remove(table, &unique(&spots), Set::of)
    }

    /// Lifts the blocks of networks; one that is not blocked is no error.
    pub fn unblock_nets(&mut self, table: &str, nets: &[Net]) -> Result<()> {
        let nets: Vec<_> = nets.iter().map(|net| (*net, None)).collect();
        self.remove(table, &nets, Set::of_net)
    }

    /// Asks for one address; `None` if it is not blocked, also because there is no such table. Networks are not
    /// looked at.
    pub fn lookup(&mut self, table: &str, address: IpAddr) -> Result<Option<Element>> {
        Ok(self.lookup_all(table, &[address.into()])?.pop().flatten())
    }

    /// Asks for many, in few conversations and without a listing: one answer for each, in order.
    pub fn lookup_all(&mut self, table: &str, spots: &[Spot]) -> Result<Vec<Option<Element>>> {
        let mut found = Vec::with_capacity(spots.len());
        for chunk in spots.chunks(QUESTIONS) {
            let first = self.sequence;
            let mut writer = crate::netlink::Writer::default();
            for spot in chunk {
                let spot = spot.canonical();
                message::ask(&mut writer, GETSETELEM, 0, self.sequence, |w| {
                    message::about_elements(w, table, Set::of(spot), Some(spot));
                });
                self.sequence = self.sequence.wrapping_add(1);
            }
            self.socket.send(&writer.into_bytes())?;
            self.answers(first, chunk, &mut found)?;
        }
        Ok(found)
    }

    /// Collects the answers to the questions from number `first` on: an element or an error for each.
    fn answers(&mut self, first: u32, asked: &[Spot], found: &mut Vec<Option<Element>>) -> Result<()> {
        let at = found.len();
        found.resize(at + asked.len(), None);
        let mut left = asked.len();
        let mut failed = None;
        while left > 0 {
            let datagram = self.socket.receive(ANSWER)?.ok_or_else(timed_out)?;
            for answer in messages(datagram) {
                let step = answer.sequence.wrapping_sub(first) as usize;
                let Some(spot) = asked.get(step) else { continue };
                match answer.errno() {
                    Some(0) => continue,
                    Some(libc::ENOENT) => {}
                    Some(errno) => failed = Some(refusal(errno, "look up an address")),
                    None if message::kind(answer.kind) == Some(NEWSETELEM) => {
                        let mut elements = message::elements(answer.body);
                        found[at + step] =
                            elements.find(|(one, _)| *one == spot.canonical()).map(|(_, element)| element);
                    }
                    None => continue,
                }
                left -= 1;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// All blocked addresses with what is left of their leases; empty if there is no such table. While others
    /// change much, one may be missing: before acting on an absence, [`Firewall::lookup`] it. Slow for very many, since
    /// the kernel begins anew for every piece: not for the way of a block.
    pub fn list(&mut self, table: &str) -> Result<Vec<(IpAddr, Option<Duration>)>> {
        let spots = self.list_spots(table)?.into_iter();
        Ok(spots.filter(|(spot, _)| spot.port.is_none()).map(|(spot, left)| (spot.address, left)).collect())
    }

    /// Like [`Firewall::list`], with blocks of single ports.
    pub fn list_spots(&mut self, table: &str) -> Result<Vec<(Spot, Option<Duration>)>> {
        let mut all = Vec::new();
        for set in Set::SPOTS {
            all.extend(self.list_set(table, set)?);
        }
        Ok(all)
    }

    /// Deletes the table with all in it; that there is none is no error.
    pub fn delete_table(&mut self, table: &str) -> Result<()> {
        not_found_is(self.transact(|batch| batch.delete_table(table)), ())
    }

    /// A listing goes through the set in several steps. While the set's hash table grows, elements change
    /// places between them and are told twice or not at all, and the kernel does not say so: hence a listing
    /// counts when the one after it agrees.
    fn list_set(&mut self, table: &str, set: Set) -> Result<Vec<(Spot, Option<Duration>)>> {
        let mut all = BTreeMap::new();
        let mut before: Option<BTreeMap<_, _>> = None;
        for _ in 0..LISTINGS {
            let mut now = BTreeMap::new();
            let mut disturbed = false;
            let answer = self.ask(
                GETSETELEM,
                NLM_F_DUMP,
                "list a set",
                |w| message::about_elements(w, table, set, None),
                |_, body| {
                    for (address, element) in message::elements(body) {
                        disturbed |= now.insert(address, element.remaining).is_some();
                    }
                },
            );
            match answer {
                Err(NftError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => disturbed = true,
                Err(e) if e.is_not_found() => return Ok(Vec::new()),
                answer => answer?,
            }
            if !disturbed && before.as_ref().is_some_and(|before| before.keys().eq(now.keys())) {
                return Ok(now.into_iter().collect());
            }
            all.extend(now.iter().map(|(address, left)| (*address, *left)));
            before = (!disturbed).then_some(now);
        }
        // Under a storm of changes: everything that was seen.
        Ok(all.into_iter().collect())
    }

    /// Adds, deletes and adds again: the first makes the deletion safe, the deletion makes the new lease count on
    /// kernels that keep the old one when an element is added twice.
    fn replace<K: Key>(
        &mut self,
        table: &str,
        entries: &[(K, Option<Duration>)],
        set_of: fn(K) -> Set,
    ) -> Result<()> {
        self.change(table, entries, set_of, &[Change::Add, Change::Delete, Change::Add])
    }

    /// Adds and deletes, because deleting what is missing would abort the transaction.
    fn remove<K: Key>(
        &mut self,
        table: &str,
        entries: &[(K, Option<Duration>)],
        set_of: fn(K) -> Set,
    ) -> Result<()> {
        self.change(table, entries, set_of, &[Change::Add, Change::Delete])
    }

    fn change<K: Key>(
        &mut self,
        table: &str,
        entries: &[(K, Option<Duration>)],
        set_of: fn(K) -> Set,
        changes: &[Change],
    ) -> Result<()> {
        for chunk in entries.chunks(TRANSACTION) {
            self.transact(|batch| {
                for set in Set::ALL {
                    let own: Vec<_> = chunk.iter().copied().filter(|(key, _)| set_of(*key) == set).collect();
                    for change in changes {
                        batch.elements(table, set, *change, &own);
                    }
                }
            })?;
        }
        Ok(())
    }

    fn transact(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut batch = Batch::new(self.sequence);
        fill(&mut batch);
        let Finished { bytes, first, steps } = batch.finish();
        let count = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        self.sequence = self.sequence.wrapping_add(count).wrapping_add(2);
        self.socket.send(&bytes)?;
        let mut refused = None;
        loop {
            let datagram = self.socket.receive(ANSWER)?.ok_or_else(timed_out)?;
            for answer in messages(datagram) {
                let step = answer.sequence.wrapping_sub(first);
                let Some(errno) = answer.errno().filter(|_| step <= count) else { continue };
                if errno != 0 && refused.is_none() {
                    let what = match step {
                        0 => "begin a transaction",
                        _ => steps.get(step as usize - 1).map_or("", String::as_str),
                    };
                    refused = Some(refusal(errno, what));
                }
                // An error for the opening message is about the whole, and nothing follows it.
                if step == count || (step == 0 && errno != 0) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        what: &str,
        fill: impl FnOnce(&mut crate::netlink::Writer),
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<()> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let dump = flags & NLM_F_DUMP != 0;
        let flags = if dump { flags } else { flags | NLM_F_ACK };
        self.socket.send(&message::question(kind, flags, sequence, fill))?;
        let mut interrupted = false;
        loop {
            let datagram = self.socket.receive(ANSWER)?.ok_or_else(timed_out)?;
            for answer in messages(datagram).filter(|answer| answer.sequence == sequence) {
                interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.errno() {
                    Some(0) => return Ok(()),
                    Some(errno) => return Err(refusal(errno, what)),
                    None if answer.kind == NLMSG_DONE && interrupted => {
                        return Err(io::Error::from(io::ErrorKind::Interrupted).into());
                    }
                    None if answer.kind == NLMSG_DONE => return Ok(()),
                    None => {
                        if let Some(kind) = message::kind(answer.kind) {
                            take(kind, answer.body);
                        }
                    }
                }
            }
        }
    }
}

/// Each spot once, with what was said of it last.
fn unique(entries: &[(Spot, Option<Duration>)]) -> Vec<(Spot, Option<Duration>)> {
    let spots = entries.iter().map(|(spot, lease)| (spot.canonical(), *lease));
    spots.collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn timed_out() -> NftError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

fn refusal(errno: i32, what: &str) -> NftError {
    match errno {
        libc::EPERM => NftError::Permission,
        _ => NftError::Refused { errno, what: what.to_owned() },
    }
}

fn not_found_is<T>(answer: Result<T>, otherwise: T) -> Result<T> {
    match answer {
        Err(e) if e.is_not_found() => Ok(otherwise),
        answer => answer,
    }
}
