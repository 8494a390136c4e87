//! Lines as strace 6.1 writes them.

use super::*;

fn hex(text: &str) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("a digit");
    text.bytes().flat_map(|byte| ['\\', 'x', digit(byte >> 4), digit(byte & 15)]).collect()
}

fn steps(lines: &[String]) -> Result<Vec<Step>> {
    let root = PathBuf::from("/data");
    let mut parser = Parser { root, unfinished: HashMap::new(), open: HashMap::new(), steps: Vec::new() };
    for line in lines {
        parser.line(line)?;
    }
    Ok(parser.steps.into_iter().map(|stamped| stamped.step).collect())
}

fn opened(rest: &[String]) -> Result<Vec<Step>> {
    let (cwd, wal) = (hex("/"), hex("/data/log.db-wal"));
    let open = format!(r#"7 12.000001 openat(AT_FDCWD<{cwd}>, "{wal}", O_RDWR|O_CREAT, 0644) = 4<{wal}>"#);
    let lines: Vec<String> = std::iter::once(open).chain(rest.iter().cloned()).collect();
    Ok(steps(&lines)?.split_off(1))
}

#[test]
fn writes_and_seeks_are_read_with_their_bytes() {
    let wal = hex("/data/log.db-wal");
    let found = opened(&[
        format!("7 12.1 lseek(4<{wal}>, 32, SEEK_SET)    = 32"),
        format!(r#"7 12.2 write(4<{wal}>, "{}", 3)         = 3"#, hex("a\"b")),
        format!(r#"7 12.3 pwrite64(4<{wal}>, "{}", 2, 512) = 2"#, hex("cd")),
        format!(
            r#"7 12.4 writev(4<{wal}>, [{{iov_base="{}", iov_len=1}}, {{iov_base="{}", iov_len=1}}], 2) = 2"#,
            hex("e"),
            hex("f")
        ),
        format!("7 12.5 ftruncate(4<{wal}>, 10) = 0"),
        format!("7 12.6 fallocate(4<{wal}>, 0, 4, 100) = 0"),
        format!("7 12.7 close(4<{wal}>) = 0"),
    ]);
    let write = |at, bytes: &[u8]| Step::Write(4, at, bytes.to_vec());
    let expected = [
        Step::Seek(4, 32),
        write(None, b"a\"b"),
        write(Some(512), b"cd"),
        write(None, b"ef"),
        Step::Truncate(4, 10),
        Step::Allocate(4, 104),
        Step::Close(4),
    ];
    assert_eq!(found.expect("readable"), expected);
}

#[test]
fn a_sync_is_two_moments_and_one_of_three_ends() {
    let wal = hex("/data/log.db-wal");
    let found = opened(&[
        format!("8 12.1 fdatasync(4<{wal}> <unfinished ...>"),
        format!(r#"7 12.2 write(4<{wal}>, "{}", 1) = 1"#, hex("a")),
        "8 12.3 <... fdatasync resumed>) = 0".to_owned(),
        format!("8 12.4 fsync(4<{wal}>) = 0 (INJECTED)"),
        format!("8 12.5 fsync(4<{wal}>) = -1 EIO (Input/output error) (INJECTED)"),
        format!("8 12.6 fsync(4<{wal}> <unfinished ...>) = ?"),
        format!("8 12.7 fsync(4<{wal}> <detached ...>"),
    ]);
    let expected = [
        Step::SyncBegin(8, 4),
        Step::Write(4, None, b"a".to_vec()),
        Step::SyncEnd(8, Synced::Yes),
        Step::SyncBegin(8, 4),
        Step::SyncEnd(8, Synced::Pretended),
        Step::SyncBegin(8, 4),
        Step::SyncEnd(8, Synced::Failed),
        Step::SyncBegin(8, 4),
    ];
    assert_eq!(found.expect("readable"), expected);
}

#[test]
fn names_are_followed_and_other_folders_are_not() {
    let (cwd, a, b, c) = (hex("/data"), hex("/data/a"), hex("b"), hex("/elsewhere/c"));
    let found = steps(&[
        format!(r#"7 1.0 rename("{a}", "{c}") = 0"#),
        format!(r#"7 1.1 unlinkat(AT_FDCWD<{cwd}>, "{b}", 0) = 0"#),
        format!(r#"7 1.2 unlink("{c}") = 0"#),
        format!(r#"7 1.3 unlink("{a}") = -1 ENOENT (No such file or directory)"#),
        format!(r#"7 1.4 write(9<{c}>, "{b}", 1) = 1"#),
    ]);
    let expected = [Step::Rename("/data/a".into(), "/elsewhere/c".into()), Step::Unlink("/data/b".into())];
    assert_eq!(found.expect("readable"), expected);
}

#[test]
fn what_cannot_be_modelled_is_refused() {
    let wal = hex("/data/log.db-wal");
    assert!(opened(&[format!(r#"7 1.0 write(4<{wal}>, "{}"..., 9) = 9"#, hex("a"))]).is_err());
    assert!(opened(&[format!("7 1.0 sync_file_range(4<{wal}>, 0, 9, 0) = 0")]).is_err());
    assert!(opened(&[format!("7 1.0 mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 4<{wal}>, 0) = 0x7f")]).is_err());
    assert!(opened(&[format!("7 1.0 mmap(NULL, 9, PROT_READ, MAP_SHARED, 4<{wal}>, 0) = 0x7f")]).is_ok());
    assert!(steps(&["7 1.0 io_uring_setup(8, 0x7f) = 5".to_owned()]).is_err());
}
