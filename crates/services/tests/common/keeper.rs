//! Our own program as far as these tests need it: `services-test-keeper keep ROLE NAME`.

fn main() -> Result<(), services::driver::process::KeepError> {
    let role = std::env::args().nth(2).unwrap_or_default();
    services::driver::process::keep(&role)
}
