//! Accesses as CSV (RFC 4180), safe to open in a spreadsheet: visitors choose their paths and user agents.

use schemas::rest::AccessEntry;

/// The first line.
pub(super) const HEAD: &str = "id,shareId,accessedAt,ipAddress,userAgent,path,method,statusCode,latencyMs,bytesIn,\
    bytesOut,denied,endedBy,repeat\r\n";

/// One access; what is erased or absent is an empty cell.
pub(super) fn line(entry: &AccessEntry) -> String {
    let text = |value: &Option<String>| value.as_deref().map(cell).unwrap_or_default();
    let cells = [
        entry.id.clone(),
        entry.share_id.clone(),
        entry.accessed_at.clone(),
        text(&entry.ip_address),
        text(&entry.user_agent),
        text(&entry.path),
        cell(&entry.method),
        entry.status_code.to_string(),
        entry.latency_ms.to_string(),
        entry.bytes_in.to_string(),
        entry.bytes_out.to_string(),
        text(&entry.denied),
        text(&entry.ended_by),
        entry.repeat.map(|repeat| repeat.to_string()).unwrap_or_default(),
    ];
    let mut line = cells.join(",");
    line.push_str("\r\n");
    line
}

/// A cell of somebody's text. What a spreadsheet would take for a formula gets an apostrophe before it, which it shows
/// as text (OWASP, "CSV injection").
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
    let defused = if is_formula { format!("'{text}") } else { text.to_owned() };
    if is_formula || text.contains(['"', ',', ';', '\r', '\n', '\'']) || text.trim() != text {
        return format!("\"{}\"", defused.replace('"', "\"\""));
    }
    defused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_no_formula() {
        for (text, expected) in [
            ("/a/b", "/a/b"),
            ("", ""),
            ("curl/8.5", "curl/8.5"),
            ("Mozilla/5.0 (X11, like \"this\")", "\"Mozilla/5.0 (X11, like \"\"this\"\")\""),
            ("two\nlines", "\"two\nlines\""),
            (" blank", "\" blank\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_head_says() {
        let entry = AccessEntry {
            id: "evt_1.0".to_owned(),
            share_id: "share_1".to_owned(),
            accessed_at: "2026-03-02T10:00:00.000Z".to_owned(),
            ip_address: Some("::1".to_owned()),
            user_agent: None,
            path: Some("/".to_owned()),
            method: "GET".to_owned(),
            status_code: 200,
            latency_ms: 3,
            bytes_in: 0,
            bytes_out: 5,
            denied: None,
            ended_by: None,
            repeat: None,
        };
        let expected = "evt_1.0,share_1,2026-03-02T10:00:00.000Z,::1,,/,GET,200,3,0,5,,,\r\n";
        assert_eq!(line(&entry), expected);
        assert_eq!(HEAD.matches(',').count(), expected.matches(',').count());
    }
}
