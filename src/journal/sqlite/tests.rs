//! What needs the inside of the journal or a disk of its own to be shown; the stories told from outside are in `tests/it`.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use zeroize::Zeroizing;

use super::*;
use crate::model::Timestamp;

fn seal() -> SealKey {
    SealKey::new(Zeroizing::new([7; 32]))
}

fn at() -> Instant {
    Instant {
        wall: Timestamp::UNIX_EPOCH,
        boot: std::time::Duration::from_nanos(1_234_567_891),
        boot_id: "5d0c7a2e".into(),
    }
}

fn store() -> ServiceName {
    ServiceName::new("store")
}

fn minted(id: &str) -> (Event, Material) {
    let key = KeyId::new(id);
    let material = Material::AccessKey { id: key.clone(), secret: Secret::new(format!("secret of {id}")) };
    (Event::Minted { key, created: None, tail: None }, material)
}

/// A file system of one MiB, as root; gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "rekeyd-test"])
            .arg(home.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(home))
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut filler = File::create(self.0.path().join("filler")).unwrap();
        for size in [4096, 1] {
            while filler.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Appends until the disk is full; the next sequence number and what was said.
async fn append_until_full(journal: &SqliteJournal, mut next: u64) -> (u64, JournalError) {
    let event = Event::DriftFound { what: "x".repeat(2000) };
    for _ in 0..1000 {
        match journal.append(&store(), next, &at(), &event, None).await {
            Ok(()) => next += 1,
            Err(error) => return (next, error),
        }
    }
    panic!("the disk never filled up");
}

#[tokio::test]
async fn a_key_minted_on_a_disk_that_filled_up_is_still_written_down() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("NOT RUN: mounting a small tmpfs needs root; the page-limit test beside this one runs everywhere");
        return;
    };
    let path = disk.0.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    journal.reserve().await.unwrap();
    disk.fill();
    let (next, error) = append_until_full(&journal, 1).await;
    let JournalError::Write(message) = &error else { panic!("{error}") };
    let start = format!("cannot write to journal {}: database or disk is full (0 KiB free", path.display());
    assert!(message.starts_with(&start), "{message}");
    disk.fill();

    let (event, material) = minted("AKIA1");
    journal.append(&store(), next, &at(), &event, Some(&material)).await.unwrap();
    assert!(!beside(&path, ".ballast").exists(), "that is what the ballast was for");
    assert_eq!(journal.material(&store(), &KeyId::new("AKIA1")).await.unwrap(), Some(material));

    disk.fill();
    let error = journal.reserve().await.unwrap_err().to_string();
    let start = format!("cannot set aside 256 KiB beside journal {} for the key about to be minted: ", path.display());
    assert!(error.starts_with(&start) && error.contains("No space left"), "{error}");
    assert!(!beside(&path, ".ballast").exists(), "half a ballast is none");

    disk.empty();
    journal.reserve().await.unwrap();
    drop(journal);
    let journal = SqliteJournal::open(&path, seal(), Mode::Existing).unwrap();
    let histories = journal.load().await.unwrap();
    assert_eq!((histories[0].records.len() as u64, &histories[0].damage), (next, &None));
    assert_eq!(histories[0].records.last().map(|record| &record.event), Some(&event));
}

#[tokio::test]
async fn without_a_ballast_a_full_disk_loses_the_write_and_says_so() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("NOT RUN: mounting a small tmpfs needs root");
        return;
    };
    let path = disk.0.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    disk.fill();
    let (next, _) = append_until_full(&journal, 1).await;
    disk.fill();
    let (event, material) = minted("AKIA1");
    assert!(matches!(
        journal.append(&store(), next, &at(), &event, Some(&material)).await,
        Err(JournalError::Write(_))
    ));
    assert_eq!(journal.material(&store(), &KeyId::new("AKIA1")).await.unwrap(), None, "neither event nor secret");
    disk.empty();
    journal.append(&store(), next, &at(), &event, Some(&material)).await.unwrap();
}

/// Runs everywhere: SQLite itself refuses to grow the file, as on a full disk; here the ballast frees nothing.
#[tokio::test]
async fn a_full_database_rolls_back_whole_and_gives_up_the_ballast_for_a_key_only() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    journal.reserve().await.unwrap();
    let limit = |pages: &'static str| {
        journal.run(move |store| {
            let limited = store.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()));
            limited.map_err(|error| read_fault(&store.path, &error))
        })
    };
    journal.append(&store(), 1, &at(), &Event::DriftCleared, None).await.unwrap();
    // The least SQLite takes is the size the file has.
    limit("1").await.unwrap();
    let (next, error) = append_until_full(&journal, 2).await;
    assert!(error.to_string().contains("database or disk is full"), "{error}");
    assert!(beside(&path, ".ballast").exists(), "no other event takes the ballast");
    let (event, _) = minted("AKIA1");
    let material =
        Material::AccessKey { id: KeyId::new("AKIA1"), secret: Secret::new("a secret of some length ".repeat(400)) };
    assert!(journal.append(&store(), next, &at(), &event, Some(&material)).await.is_err());
    assert!(!beside(&path, ".ballast").exists());
    let history = &journal.load().await.unwrap()[0];
    assert_eq!((history.records.len() as u64, &history.damage), (next - 1, &None));
    limit("100000").await.unwrap();
    journal.append(&store(), next, &at(), &event, Some(&material)).await.unwrap();
}

#[tokio::test]
async fn an_event_with_another_keys_material_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&home.path().join("journal.db"), seal(), Mode::Create).unwrap();
    let ((event, _), (_, other)) = (minted("AKIA1"), minted("AKIA2"));
    let error = journal.append(&store(), 1, &at(), &event, Some(&other)).await.unwrap_err();
    assert!(error.to_string().ends_with("the event names key AKIA1, its material is of key AKIA2"), "{error}");
}

#[tokio::test]
async fn sealed_material_moved_to_another_row_does_not_open() {
    let home = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&home.path().join("journal.db"), seal(), Mode::Create).unwrap();
    let other = ServiceName::new("other");
    for (service, id) in [(&store(), "AKIA1"), (&other, "AKIA2")] {
        let (event, material) = minted(id);
        journal.append(service, 1, &at(), &event, Some(&material)).await.unwrap();
    }
    let swap = "UPDATE sealed SET blob = (SELECT blob FROM sealed WHERE key = 'AKIA1') WHERE key = 'AKIA2'";
    journal
        .run(move |store| store.db.execute(swap, []).map_err(|error| write_fault(&store.path, &error)))
        .await
        .unwrap();
    let error = journal.material(&other, &KeyId::new("AKIA2")).await.unwrap_err();
    assert!(matches!(error, JournalError::Damaged(_)), "{error}");
    assert!(journal.material(&store(), &KeyId::new("AKIA1")).await.unwrap().is_some());
}

#[tokio::test]
async fn shredding_does_not_claim_what_a_reader_prevents() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    let (event, material) = minted("AKIA1");
    journal.append(&store(), 1, &at(), &event, Some(&material)).await.unwrap();
    let impatient = |store: &mut Store| {
        store.db.busy_timeout(std::time::Duration::ZERO).map_err(|error| read_fault(&store.path, &error))
    };
    journal.run(impatient).await.unwrap();
    let reader = open_read_only(&path).unwrap();
    reader.db.execute_batch("BEGIN; SELECT * FROM sealed;").unwrap();
    let error = journal.shred(&store(), &KeyId::new("AKIA1")).await.unwrap_err();
    assert!(matches!(error, JournalError::Write(_)) && error.to_string().contains("another process is reading it"));
    reader.db.execute_batch("COMMIT").unwrap();
    journal.shred(&store(), &KeyId::new("AKIA1")).await.unwrap();
    assert_eq!(beside(&path, "-wal").metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn a_broken_page_stops_the_start_even_where_no_event_stands_on_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    let (event, material) = minted("AKIA1");
    journal.append(&store(), 1, &at(), &event, Some(&material)).await.unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'sealed'";
    let page: isize = journal
        .run(|store| store.db.query_row(root, [], |row| row.get(0)).map_err(|error| read_fault(&store.path, &error)))
        .await
        .unwrap();
    drop(journal);
    let mut contents = fs::read(&path).unwrap();
    // The page says it holds no rows: the sealed secret would silently be gone.
    let start = (page.unsigned_abs() - 1) * 4096;
    contents[start + 3..start + 5].fill(0);
    fs::write(&path, contents).unwrap();
    let journal = SqliteJournal::open(&path, seal(), Mode::Existing).unwrap();
    let error = journal.load().await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged(why) if why.contains("is a damaged file (")), "{error}");
}

#[tokio::test]
async fn a_service_row_that_changed_stops_everything_and_a_cut_tail_its_service() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = SqliteJournal::open(&path, seal(), Mode::Create).unwrap();
    for sequence in 1..=3 {
        journal.append(&store(), sequence, &at(), &Event::DriftCleared, None).await.unwrap();
    }
    let run = |statement: &'static str| {
        journal.run(move |store| store.db.execute_batch(statement).map_err(|error| write_fault(&store.path, &error)))
    };
    run("DROP TRIGGER event_is_never_removed; DELETE FROM event WHERE sequence = 3").await.unwrap();
    let history = &journal.load().await.unwrap()[0];
    let damage = history.damage.as_deref().unwrap();
    assert_eq!(history.records.len(), 2);
    assert!(damage.contains("sequence 3: its events end at sequence 2 with"), "{damage}");
    assert!(
        journal.append(&store(), 3, &at(), &Event::DriftCleared, None).await.is_err(),
        "nothing is put over the gap"
    );

    run("UPDATE service SET name = 'stora'").await.unwrap();
    let error = journal.load().await.unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged(_)) && error.to_string().contains("whose events are whose"),
        "{error}"
    );
    run("UPDATE service SET name = 'store'; PRAGMA foreign_keys = off; DELETE FROM service").await.unwrap();
    let error = journal.load().await.unwrap_err();
    assert!(error.to_string().contains("has events of service number 1"), "{error}");
}

#[tokio::test]
async fn an_event_of_a_newer_rekeyd_stops_the_load() {
    let home = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&home.path().join("journal.db"), seal(), Mode::Create).unwrap();
    journal.append(&store(), 1, &at(), &Event::DriftCleared, None).await.unwrap();
    // As a newer rekeyd would: a chain that verifies, over a body that is not known here.
    let write = |store: &mut Store| {
        let row = crate::journal::chain::Row {
            sequence: 1,
            at_wall: b"2030-01-01T00:00:00Z".to_vec(),
            at_boot: 0,
            boot_id: b"b".to_vec(),
            body: br#"{"v":2,"kind":"frozen"}"#.to_vec(),
            hash: vec![],
        };
        let genesis = crate::journal::chain::genesis("later");
        let hash = crate::journal::chain::link(&genesis, "later", &row);
        let whose = read::whose(9, "later", "later");
        let write = || {
            store.db.execute(
                "INSERT INTO service VALUES (9, 'later', 'later', ?, 1, ?)",
                rusqlite::params![whose.as_slice(), hash.as_slice()],
            )?;
            store.db.execute(
                "INSERT INTO event VALUES (9, 1, '2030-01-01T00:00:00Z', 0, 'b', '{\"v\":2,\"kind\":\"frozen\"}', ?)",
                [hash.as_slice()],
            )
        };
        write().map_err(|error| write_fault(&store.path, &error))
    };
    journal.run(write).await.unwrap();
    let error = journal.load().await.unwrap_err();
    let JournalError::Newer(message) = &error else { panic!("{error}") };
    assert!(message.contains("service later, sequence 1: the event `frozen` is in format 2"), "{message}");
    assert_eq!(message.matches("written by a newer rekeyd").count(), 1, "{message}");
}
