#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| couchrep_fuzz::properties::multipart::holds(input));
