#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tld_fuzz::syslog(data));
