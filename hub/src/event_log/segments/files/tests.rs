//! Whose log this is, and that a later release's is told from a damaged one.

use super::*;

fn with_crc(content: &[u8]) -> Vec<u8> {
    [content, &crc32fast::hash(content).to_le_bytes()].concat()
}

fn identity(content: &[u8]) -> Result<uuid::Uuid, IdentityError> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(log_dir(dir.path())).unwrap();
    fs::write(identity_path(dir.path()), content).unwrap();
    read_identity(dir.path())
}

#[test]
fn an_identity_of_a_later_format_names_the_release_to_use() {
    let of = |format: &[u8], release: &[u8]| {
        let length = u8::try_from(release.len()).unwrap();
        with_crc(&[b"PCONLOG", format, &[7; 16], &[length], release, b"and more"].concat())
    };
    let Err(IdentityError::Later(later)) = identity(&of(b"2", b"1.4.0-rc.1")) else { panic!("it was read") };
    let said = later.to_string();
    for part in ["storage format 2", "start release 1.4.0-rc.1 or a later one", env!("CARGO_PKG_VERSION")] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // A byte that is wrong makes it none, and so does what no release would call itself.
    let mut changed = of(b"2", b"1.4.0");
    changed[10] ^= 1;
    for damaged in
        [changed, of(b"2", b""), of(b"2", b"\x1b[2J"), of(b"\n", b"1.4.0"), of(b"2", b"1.4.0")[..30].to_vec()]
    {
        assert!(matches!(identity(&damaged), Err(IdentityError::Damaged)), "{damaged:?}");
    }
    let own = with_crc(&[&IDENTITY_MAGIC[..], &[7; 16]].concat());
    assert_eq!(identity(&own).unwrap(), uuid::Uuid::from_bytes([7; 16]));
}

#[test]
fn a_segment_of_a_later_format_is_known_by_its_whole_header() {
    let log_id = uuid::Uuid::from_bytes([7; 16]);
    let mut header = segment_header(log_id, Family::Facts);
    assert_eq!(later_segment(&header, log_id), None, "it is of this one");
    header[7] = b'2';
    assert_eq!(later_segment(&header, log_id), None, "a changed byte, no format");
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(later_segment(&header, log_id), Some('2'));
    assert_eq!(later_segment(&header, uuid::Uuid::nil()), None, "another log's");
}
