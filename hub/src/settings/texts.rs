//! Texts of settings that are refused at once rather than found out about later.

/// The shortest token that keeps metrics from those who should not read them (characters).
const METRICS_TOKEN_MIN: usize = 16;

pub(super) fn metrics_token(text: &str) -> Result<String, String> {
    // What fits into a header as it is.
    if text.len() >= METRICS_TOKEN_MIN && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be {METRICS_TOKEN_MIN} or more ASCII characters without blanks"))
    }
}
