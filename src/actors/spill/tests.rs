use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tempfile::tempdir;

use super::*;
use crate::protocol::rpc::large::Source;

fn key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a key")
}

fn room(waiting: &Waiting) -> Option<Room> {
    match waiting.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(room) => Some(room),
        Poll::Pending => None,
    }
}

#[test]
fn room_is_given_in_the_order_of_arrival_and_to_each_key_once() {
    let directory = tempdir().expect("a directory");
    let spill = Spill::open(directory.path(), Some(100)).expect("it opens");
    let enter = |name, bytes| spill.enter(key(name), bytes).expect("not too large");
    assert_eq!(spill.enter(key("a"), 101).err(), Some(TooLarge { bytes: 101, bytes_max: 100 }));
    let (first, again, large, small) =
        (enter("a", 60), enter("a", 1), enter("b", 50), enter("c", 1));
    let held = room(&first).expect("it is empty");
    assert_eq!(spill.figures(), (60, 3));
    // The key has a set; the next one does not fit; and whoever comes later has to wait for that one, not for the key.
    for waiting in [&again, &large, &small] {
        assert!(room(waiting).is_none());
    }
    drop(large);
    let small = room(&small).expect("it is next, since the one before it waits for its key");
    drop(held);
    assert!(room(&again).is_some());
    assert_eq!(spill.figures(), (1, 0));
    drop(small);
    assert_eq!(spill.figures(), (0, 0));
}

#[test]
fn parts_come_in_any_order_and_nothing_is_left_behind() {
    let directory = tempdir().expect("a directory");
    std::fs::write(directory.path().join("7"), "of a process that was killed").expect("a file");
    let spill = Spill::open(directory.path(), None).expect("it opens");
    let files = || std::fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(files(), 0);
    let room = room(&spill.enter(key("a"), 6).expect("it fits")).expect("room");
    let file = SpillFile::create(room).expect("a file");
    file.write(3, &Bytes::from_static(b"def")).expect("written");
    file.write(0, &Bytes::from_static(b"abc")).expect("written");
    let mut read = [0; 4];
    file.read_at(1, &mut read).expect("read");
    assert_eq!((&read, file.bytes(), files()), (b"bcde", 6, 1));
    let mut table = file.table().expect("a table");
    for count in 0..20 {
        assert_eq!(table.get(count).expect("read"), None);
        table.push(count * count).expect("written");
        for at in 0..=count {
            assert_eq!(table.get(at).expect("read"), Some(at * at));
        }
    }
    drop((file, table));
    assert_eq!((files(), spill.figures()), (0, (0, 0)));
}

/// The server did not start: `mkfs` makes this folder.
#[test]
fn a_disk_of_its_own_may_have_a_folder() {
    let directory = tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("lost+found")).expect("made");
    std::fs::write(directory.path().join("7"), "of a process that was killed").expect("a file");
    Spill::open(directory.path(), None).expect("it opens");
    assert!(directory.path().join("lost+found").is_dir() && !directory.path().join("7").exists());
}
