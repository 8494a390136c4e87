//! The disk forgets what it must and nothing else.

use super::*;

fn disk(steps: &[Step]) -> Disk {
    let mut disk = Disk::new(Names::Strict);
    for step in steps {
        disk.follow(step);
    }
    disk
}

fn open(fd: u32, path: &str, flags: &str) -> Step {
    Step::Open { fd, path: path.into(), flags: flags.to_owned() }
}

fn write(bytes: &[u8]) -> Step {
    Step::Write(3, None, bytes.to_vec())
}

fn sync(fd: u32, ended: Synced) -> [Step; 2] {
    [Step::SyncBegin(9, fd), Step::SyncEnd(9, ended)]
}

/// What is left: names and contents.
fn left(disk: &Disk, mut luck: Luck) -> Vec<(String, String)> {
    let image = tempfile::tempdir().expect("a folder");
    disk.leave(Path::new("/data"), image.path(), &mut luck).expect("an image");
    let mut files: Vec<(String, String)> = fs::read_dir(image.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect();
    files.sort();
    files
}

fn file(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn only_what_was_synced_is_left() {
    let [begin, end] = sync(3, Synced::Yes);
    let steps = [open(3, "/data/a", "O_CREAT"), write(b"one"), begin, write(b"two"), end, write(b"three")];
    let disk = disk(&steps);
    assert_eq!(left(&disk, Luck::None), [file("a", "one")]);
    let torn = left(&disk, Luck::Torn(Chance::new(1)));
    assert_eq!(torn.len(), 1);
}

#[test]
fn a_pretended_sync_saves_nothing_and_a_failed_one_loses_for_good() {
    let create = || open(3, "/data/a", "O_CREAT");
    let pretended = disk(&[vec![create(), write(b"one")], sync(3, Synced::Pretended).into()].concat_steps());
    assert_eq!(left(&pretended, Luck::None), []);
    let steps = [
        vec![create(), write(b"one")],
        sync(3, Synced::Yes).into(),
        vec![write(b"two")],
        sync(3, Synced::Failed).into(),
        sync(3, Synced::Yes).into(),
    ];
    assert_eq!(left(&disk(&steps.concat_steps()), Luck::None), [file("a", "one")]);
}

#[test]
fn what_a_failed_sync_lost_stays_lost_after_a_restart_until_it_is_written_again() {
    let steps = [vec![open(3, "/data/a", "O_CREAT"), write(b"one")], sync(3, Synced::Failed).into()];
    let mut disk = disk(&steps.concat_steps());
    disk.process_ended();
    let more =
        [vec![open(5, "/data/a", "O_RDWR"), Step::Write(5, Some(3), b"two".to_vec())], sync(5, Synced::Yes).into()];
    for step in more.concat_steps() {
        disk.follow(&step);
    }
    assert_eq!(left(&disk, Luck::None), [file("a", "\0\0\0two")]);
}

#[test]
fn a_name_lasts_once_its_folder_or_file_was_synced() {
    let steps = [
        vec![open(4, "/data", "O_RDONLY"), open(3, "/data/a", "O_CREAT"), write(b"x")],
        sync(3, Synced::Yes).into(),
        vec![Step::Rename("/data/a".into(), "/data/b".into()), open(5, "/data/c", "O_CREAT")],
    ];
    let mut disk = disk(&steps.concat_steps());
    assert_eq!(left(&disk, Luck::None), [file("a", "x")]);
    for step in sync(4, Synced::Yes) {
        disk.follow(&step);
    }
    assert_eq!(left(&disk, Luck::None), [file("b", "x"), file("c", "")]);
    disk.follow(&Step::Unlink("/data/b".into()));
    assert_eq!(left(&disk, Luck::None).len(), 2);
}

#[test]
fn where_names_are_ordered_any_sync_makes_them_last() {
    let steps = [
        vec![open(3, "/data/a", "O_CREAT"), open(4, "/data/b", "O_CREAT")],
        sync(4, Synced::Yes).into(),
        vec![Step::Rename("/data/a".into(), "/data/c".into())],
    ];
    let mut disk = Disk::new(Names::Ordered);
    for step in steps.concat_steps() {
        disk.follow(&step);
    }
    assert_eq!(left(&disk, Luck::None), [file("a", ""), file("b", "")]);
}

#[test]
fn seeks_appends_and_lengths_are_followed_and_the_index_is_left_out() {
    let steps = [
        vec![open(3, "/data/a", "O_CREAT"), write(b"abc"), Step::Seek(3, 1), write(b"X")],
        vec![
            Step::Write(3, Some(3), b"d".to_vec()),
            write(b"Y"),
            Step::Truncate(3, 3),
            open(3, "/data/a", "O_APPEND"),
            write(b"!"),
        ],
        sync(3, Synced::Yes).into(),
        vec![open(3, "/data/log.db-shm", "O_CREAT"), write(b"x")],
        sync(3, Synced::Yes).into(),
    ];
    assert_eq!(left(&disk(&steps.concat_steps()), Luck::None), [file("a", "aXY!")]);
}

trait Steps {
    fn concat_steps(self) -> Vec<Step>;
}

impl<T: IntoIterator<Item = Vec<Step>>> Steps for T {
    fn concat_steps(self) -> Vec<Step> {
        self.into_iter().flatten().collect()
    }
}
