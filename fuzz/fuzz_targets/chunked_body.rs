#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate::proxy::fuzzing::chunked_body(input));
