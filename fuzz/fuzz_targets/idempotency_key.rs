#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate::policy::fuzzing::idempotency_key(input));
