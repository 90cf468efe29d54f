//! The journal from outside: what survives a power cut, what damage does, who gets in, and that no secret stays behind.
//!
//! A power cut is played by copying the files as they stand while the journal is open, and opening the copy.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rekeyd::journal::sqlite::{self, Mode, Resealed, SqliteJournal};
use rekeyd::model::{Instant, KeyId, Material, Secret, ServiceName, Timestamp};
use rekeyd::ports::{History, Journal, JournalError, LoginGuard};
use rekeyd::rotation::event::Event;
use rekeyd::seal::SealKey;
use tempfile::TempDir;

fn seal(digit: &str) -> SealKey {
    SealKey::from_secret(&Secret::new(digit.repeat(64))).expect("64 hex digits are a seal key")
}

fn named(name: &str) -> ServiceName {
    ServiceName::new(name)
}

fn at(second: i64) -> Instant {
    Instant {
        wall: Timestamp::from_timestamp(1_795_000_000 + second, 123_456_789).expect("a time"),
        boot: Duration::new(second.unsigned_abs(), 1),
        boot_id: "2f6a8c0e-boot".into(),
    }
}

fn note(what: impl Into<String>) -> Event {
    Event::DriftFound { what: what.into() }
}

fn minted(id: &str, secret: &str) -> (Event, Material) {
    let key = KeyId::new(id);
    let material = Material::AccessKey { id: key.clone(), secret: Secret::new(secret.to_owned()) };
    (Event::Minted { key, created: None, tail: None }, material)
}

/// A directory with a journal in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal.db")
    }

    fn open(&self) -> SqliteJournal {
        SqliteJournal::open(&self.journal(), seal("a"), Mode::Create).expect("the journal opens")
    }

    /// What the disk would hold if the power went now.
    fn power_cut(&self) -> Self {
        let copy = Self::new();
        for file in ["journal.db", "journal.db-wal"] {
            let from = self.0.path().join(file);
            if from.exists() {
                fs::copy(from, copy.0.path().join(file)).expect("a copy");
            }
        }
        copy
    }

    /// Whether any file here holds these bytes.
    fn holds(&self, bytes: &[u8]) -> bool {
        self.0.path().read_dir().expect("a directory").any(|entry| {
            let contents = fs::read(entry.expect("an entry").path()).expect("a file");
            contents.windows(bytes.len()).any(|window| window == bytes)
        })
    }

    /// Flips one bit of the byte these bytes begin with, where they stand in the database.
    fn flip(&self, bytes: &[u8]) {
        let path = self.journal();
        let mut contents = fs::read(&path).expect("the journal");
        let places: Vec<usize> =
            (0..contents.len() - bytes.len()).filter(|&from| contents[from..].starts_with(bytes)).collect();
        assert_eq!(places.len(), 1, "the test means one place");
        contents[places[0]] ^= 0x80;
        fs::write(&path, contents).expect("the journal");
    }
}

async fn fill(journal: &SqliteJournal, service: &str, count: u64) {
    for sequence in 1..=count {
        let event = note(format!("{service} {sequence}"));
        journal.append(&named(service), sequence, &at(sequence as i64), &event, None).await.expect("an append");
    }
}

async fn history(journal: &SqliteJournal, service: &str) -> History {
    let histories = journal.load().await.expect("the journal loads");
    histories.into_iter().find(|history| history.service == named(service)).expect("the service has a history")
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart_to_the_last_nanosecond() {
    let home = Home::new();
    fill(&home.open(), "store", 3).await;
    let journal = home.open();
    let history = history(&journal, "store").await;
    assert_eq!(history.damage, None);
    let got: Vec<_> = history.records.iter().map(|record| (record.sequence, &record.at, &record.event)).collect();
    let expected: Vec<_> = (1..=3).map(|n| (n as u64, at(n), note(format!("store {n}")))).collect();
    assert_eq!(got, expected.iter().map(|(sequence, at, event)| (*sequence, at, event)).collect::<Vec<_>>());
    journal.append(&named("store"), 4, &at(4), &Event::DriftCleared, None).await.expect("it goes on");
}

#[tokio::test]
async fn after_a_power_cut_everything_acknowledged_is_there() {
    let home = Home::new();
    let journal = home.open();
    let (event, material) = minted("AKIA1", "the minted secret");
    for sequence in 1..=20 {
        if sequence == 7 {
            journal.append(&named("store"), 7, &at(7), &event, Some(&material)).await.expect("an append");
        } else {
            journal.append(&named("store"), sequence, &at(1), &note("n"), None).await.expect("an append");
        }
        let cut = home.power_cut();
        let after = cut.open();
        let history = history(&after, "store").await;
        assert_eq!((history.records.len() as u64, history.damage), (sequence, None));
        let held = after.material(&named("store"), &KeyId::new("AKIA1")).await.expect("a look");
        assert_eq!(held.is_some(), sequence >= 7, "event and secret come together");
    }
}

#[tokio::test]
async fn a_log_torn_anywhere_loses_whole_events_from_its_end_and_nothing_else() {
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 5).await;
    let (event, material) = minted("AKIA1", "the minted secret");
    journal.append(&named("store"), 6, &at(6), &event, Some(&material)).await.expect("an append");
    let length = home.power_cut().0.path().join("journal.db-wal").metadata().expect("a log").len();
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..40 {
        let cut = home.power_cut();
        let log = OpenOptions::new().write(true).open(cut.0.path().join("journal.db-wal")).expect("the log");
        log.set_len(length * step / 40).expect("a cut");
        let after = cut.open();
        let events = after.load().await.expect("it loads").first().map_or(0, |history| {
            assert_eq!(history.damage, None);
            history.records.len()
        });
        let held = after.material(&named("store"), &KeyId::new("AKIA1")).await.expect("a look").is_some();
        assert_eq!(held, events == 6);
        seen.insert(events);
    }
    assert!(seen.len() > 3, "the cuts fall between events: {seen:?}");
}

#[tokio::test]
async fn a_cut_tail_shows_in_the_heads() {
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 2).await;
    let backup = home.power_cut();
    let before = journal.heads().await.expect("heads");
    journal.append(&named("store"), 3, &at(3), &note("later"), None).await.expect("an append");
    let (service, sequence, hash) = journal.heads().await.expect("heads").remove(0);
    assert_eq!((service, sequence, hash.len()), (named("store"), 3, 64));
    assert_eq!(backup.open().heads().await.expect("heads"), before, "the old copy verifies, and says where it ends");
}

#[tokio::test]
async fn a_flipped_bit_damages_one_service_from_that_event_on_and_no_other() {
    let home = Home::new();
    let journal = home.open();
    for service in ["alpha", "store", "zulu"] {
        fill(&journal, service, 6).await;
    }
    drop(journal);
    home.flip(b"store 4\"}");
    let journal = home.open();
    for service in ["alpha", "zulu"] {
        let history = history(&journal, service).await;
        assert_eq!((history.records.len(), history.damage), (6, None));
    }
    let history = history(&journal, "store").await;
    let damage = history.damage.expect("it is damaged");
    assert_eq!(history.records.len(), 3);
    let start = format!("journal {}, service store, sequence 4: the row's hash is ", home.journal().display());
    assert!(damage.starts_with(&start), "{damage}");
    let refused = journal.append(&named("store"), 4, &at(9), &note("n"), None).await;
    assert!(matches!(refused, Err(JournalError::Damaged(_))), "nothing is written over the damage");
    journal.append(&named("zulu"), 7, &at(9), &note("n"), None).await.expect("the others go on");

    let checked = journal.verify().await.expect("a check");
    let states: Vec<_> = checked.iter().map(|one| (one.service.as_str(), one.events, one.damage.is_some())).collect();
    assert_eq!(states, [("alpha", 6, false), ("store", 3, true), ("zulu", 7, false)]);
}

#[tokio::test]
async fn a_truncated_or_overwritten_file_is_damage_and_no_panic() {
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 200).await;
    drop(journal);
    let whole = fs::read(home.journal()).expect("the journal");
    let mut damaged = 0;
    for step in 0..30 {
        let copy = Home::new();
        let mut contents = whole.clone();
        if step % 2 == 0 {
            contents.truncate(whole.len() * step / 30);
        } else {
            let from = whole.len() * step / 30;
            contents[from..(from + 700).min(whole.len())].fill(0x5a);
        }
        fs::write(copy.journal(), &contents).expect("the copy");
        let found = match SqliteJournal::open(&copy.journal(), seal("a"), Mode::Create) {
            Ok(journal) => journal.load().await,
            Err(error) => Err(error),
        };
        match found {
            Err(JournalError::Damaged(_)) => damaged += 1,
            Ok(histories) => {
                // Bytes no row stands on; or a row, and then its service says so.
                let history = &histories[0];
                assert!(history.damage.is_some() || history.records.len() == 200, "step {step}");
            }
            Err(error) => panic!("step {step}: {error:?}"),
        }
        assert!(copy.journal().exists(), "the file is kept for whoever repairs it");
    }
    assert!(damaged > 10, "{damaged}");
}

#[tokio::test]
async fn a_second_writer_is_told_who_is_in_and_a_reader_gets_in() {
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 2).await;
    let second = SqliteJournal::open(&home.journal(), seal("a"), Mode::Existing).err().expect("it is refused");
    let expected = format!("journal {} is held by process {}", home.journal().display(), std::process::id());
    assert_eq!(second, JournalError::Locked(expected));

    let reader = sqlite::open_read_only(&home.journal()).expect("a reader");
    assert_eq!(reader.load().expect("histories")[0].records.len(), 2);
    journal.append(&named("store"), 3, &at(3), &note("n"), None).await.expect("it is not in the way");
    assert_eq!(reader.load().expect("histories")[0].records.len(), 3);
    assert_eq!(reader.heads().expect("heads"), journal.heads().await.expect("heads"));
    assert_eq!(reader.verify().expect("a check")[0].damage, None);
    drop(journal);
    home.open();
}

#[test]
fn only_create_makes_a_journal_and_nothing_is_left_where_none_is() {
    let home = Home::new();
    let expected = JournalError::Unreachable(format!(
        "journal {} does not exist; only `rekeyd run` makes one",
        home.journal().display()
    ));
    assert_eq!(SqliteJournal::open(&home.journal(), seal("a"), Mode::Existing).err(), Some(expected.clone()));
    assert_eq!(sqlite::open_read_only(&home.journal()).err(), Some(expected));
    assert_eq!(home.0.path().read_dir().expect("a directory").count(), 0);

    let nowhere = home.0.path().join("missing/journal.db");
    let error = SqliteJournal::open(&nowhere, seal("a"), Mode::Create).err().expect("it is refused");
    assert!(matches!(&error, JournalError::Unreachable(why) if why.contains("No such file or directory")), "{error}");
}

#[tokio::test]
async fn each_sequence_number_is_written_once_and_in_order() {
    let home = Home::new();
    let journal = home.open();
    for wrong in [0, 2, u64::MAX] {
        assert!(journal.append(&named("store"), wrong, &at(1), &note("n"), None).await.is_err());
    }
    assert_eq!(journal.load().await.expect("histories").len(), 0, "a refused first event leaves no service behind");
    fill(&journal, "store", 2).await;
    for wrong in [0, 1, 2, 4] {
        let error = journal.append(&named("store"), wrong, &at(1), &note("n"), None).await.expect_err("it is refused");
        assert!(matches!(error, JournalError::Damaged(_)), "{error}");
        assert!(error.to_string().contains(&format!("as sequence {wrong}, and the next one is 3")), "{error}");
    }
    journal.append(&named("store"), 3, &at(1), &note("n"), None).await.expect("the right one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_write_at_once_and_one_wins_each_number() {
    let home = Home::new();
    let journal = Arc::new(home.open());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let own = format!("own-{task}");
                let mut won = 0;
                for sequence in 1..=20 {
                    journal.append(&named(&own), sequence, &at(1), &note("n"), None).await.expect("its own chain");
                    won +=
                        u32::from(journal.append(&named("shared"), sequence, &at(1), &note("n"), None).await.is_ok());
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += task.await.expect("the task");
    }
    let histories = journal.load().await.expect("histories");
    assert!(histories.iter().all(|history| history.damage.is_none()));
    let shared = histories.iter().find(|history| history.service == named("shared")).expect("a history");
    assert_eq!(shared.records.len() as u32, won);
    assert_eq!(histories.iter().map(|history| history.records.len()).sum::<usize>() as u32, 8 * 20 + won);
}

#[tokio::test]
async fn a_secret_is_never_on_the_disk_in_clear_and_shredded_is_gone_sealed_too() {
    let home = Home::new();
    let (event, material) = minted("AKIA1", "wJalrXUtnFEMI-the-secret-itself");
    let (other_event, other) = minted("AKIA2", "another-secret-that-stays");
    let blob_of = |home: &Home, id: &str| -> Vec<u8> {
        let db = rusqlite::Connection::open(home.journal()).expect("the file");
        db.query_row("SELECT blob FROM sealed WHERE key = ?", [id], |row| row.get(0)).expect("a blob")
    };
    // Once from the log, and once after a restart has moved it into the database.
    for restarted in [false, true] {
        let service = named(if restarted { "moved" } else { "fresh" });
        let mut journal = home.open();
        journal.append(&service, 1, &at(1), &event, Some(&material)).await.expect("an append");
        journal.append(&service, 2, &at(1), &other_event, Some(&other)).await.expect("an append");
        if restarted {
            drop(journal);
            journal = home.open();
        }
        let (blob, staying) = (blob_of(&home, "AKIA1"), blob_of(&home, "AKIA2"));
        assert!(home.holds(&blob) && home.holds(&staying), "the search finds what is there");
        let both = vec![KeyId::new("AKIA1"), KeyId::new("AKIA2")];
        assert_eq!(journal.materials(&service).await, Ok(both));
        assert!(!home.holds(b"wJalrXUtnFEMI") && !home.holds(b"another-secret"));
        for _ in 0..2 {
            journal.shred(&service, &KeyId::new("AKIA1")).await.expect("a shredding, and once more");
        }
        for part in blob.chunks(16) {
            assert!(!home.holds(part) || part.len() < 8, "no part of it is left");
        }
        assert!(home.holds(&staying));
        assert_eq!(journal.materials(&service).await, Ok(vec![KeyId::new("AKIA2")]));
        assert_eq!(journal.material(&service, &KeyId::new("AKIA1")).await, Ok(None));
        assert_eq!(journal.material(&service, &KeyId::new("AKIA2")).await, Ok(Some(other.clone())));
        journal.shred(&service, &KeyId::new("AKIA2")).await.expect("a shredding");
        assert_eq!(journal.sealed_rows().await, Ok(0));
    }
}

#[tokio::test]
async fn the_wrong_seal_key_is_said_plainly_and_resealing_brings_secrets_over() {
    let home = Home::new();
    let (event, material) = minted("AKIA1", "secret");
    home.open().append(&named("store"), 1, &at(1), &event, Some(&material)).await.expect("an append");

    let journal = SqliteJournal::open(&home.journal(), seal("b"), Mode::Existing).expect("it opens");
    assert_eq!(journal.sealed_with_other_keys().await, Ok(vec![(seal("a").id(), 1)]));
    let error = journal.material(&named("store"), &KeyId::new("AKIA1")).await.expect_err("it does not open");
    let told = format!("sealed with key {}, this is key {}", seal("a").id(), seal("b").id());
    assert!(matches!(&error, JournalError::Unreachable(why) if why.ends_with(&told)), "{error}");

    assert_eq!(journal.reseal(seal("c")).await, Ok(Resealed { done: 0, left: 1 }));
    assert_eq!(journal.reseal(seal("a")).await, Ok(Resealed { done: 1, left: 0 }));
    assert_eq!(journal.reseal(seal("a")).await, Ok(Resealed { done: 0, left: 0 }));
    assert_eq!(journal.material(&named("store"), &KeyId::new("AKIA1")).await, Ok(Some(material)));
    assert_eq!(journal.sealed_with_other_keys().await, Ok(vec![]));
}

#[tokio::test]
async fn a_lost_seal_key_is_never_made_anew_over_sealed_secrets() {
    let home = Home::new();
    let key_file = sqlite::default_key_file(&home.journal());
    assert!(sqlite::seal_key_file(&home.journal(), &key_file, Mode::Existing).is_err(), "only a daemon makes one");
    let first = sqlite::seal_key_file(&home.journal(), &key_file, Mode::Create).expect("the first start makes it");
    assert!(first.made);
    let journal = SqliteJournal::open(&home.journal(), first.key, Mode::Create).expect("it opens");
    assert!(!sqlite::seal_key_file(&home.journal(), &key_file, Mode::Create).expect("it is there").made);
    let (event, material) = minted("AKIA1", "secret");
    journal.append(&named("store"), 1, &at(1), &event, Some(&material)).await.expect("an append");

    fs::remove_file(&key_file).expect("it is lost");
    let error = sqlite::seal_key_file(&home.journal(), &key_file, Mode::Create).expect_err("it is refused");
    let expected = format!(
        "the seal key file {} is missing, and journal {} holds 1 secret sealed with it: restore the file from a backup; \
         no new key was made",
        key_file.display(),
        home.journal().display()
    );
    assert_eq!(error, JournalError::Unreachable(expected));
    assert!(!key_file.exists());

    journal.shred(&named("store"), &KeyId::new("AKIA1")).await.expect("a shredding");
    assert!(sqlite::seal_key_file(&home.journal(), &key_file, Mode::Create).expect("nothing waits for it").made);
}

#[tokio::test]
async fn a_renamed_service_keeps_its_history_and_its_secrets() {
    let home = Home::new();
    let journal = home.open();
    let (event, material) = minted("AKIA1", "secret");
    journal.append(&named("old"), 1, &at(1), &event, Some(&material)).await.expect("an append");
    for _ in 0..2 {
        journal.rename(&named("old"), &named("new")).await.expect("a rename, and once more at the next start");
    }
    journal.append(&named("new"), 2, &at(2), &note("n"), None).await.expect("it goes on under the new name");
    // Another service takes the old name, and even the same key: neither chain nor seal is confused.
    journal.append(&named("old"), 1, &at(3), &event, Some(&material)).await.expect("a new history");
    journal.rename(&named("old"), &named("new")).await.expect("the policy still says so, and it is done");
    drop(journal);

    let journal = home.open();
    assert_eq!(history(&journal, "new").await.records.len(), 2);
    assert_eq!(history(&journal, "old").await.records.len(), 1);
    assert!(journal.load().await.expect("histories").iter().all(|history| history.damage.is_none()));
    for service in ["new", "old"] {
        assert_eq!(journal.material(&named(service), &KeyId::new("AKIA1")).await, Ok(Some(material.clone())));
    }
    journal.rename(&named("never-seen"), &named("other")).await.expect("nothing to do");
    fill(&journal, "third", 1).await;
    let error = journal.rename(&named("third"), &named("new")).await.expect_err("both have a past");
    assert_eq!(error.to_string(), "cannot rename service third to new: the journal has a history of each");
}

#[tokio::test]
async fn a_refused_login_is_remembered_across_restarts_until_forgiven() {
    let home = Home::new();
    let journal = home.open();
    let (wrong, right) = (Secret::new("hunter2-hunter2".into()), Secret::new("correct horse".into()));
    assert!(!journal.is_refused("arcgis.prod", "rotator", &wrong));
    journal.refused("arcgis.prod", "rotator", &wrong);
    journal.refused("arcgis.prod", "rotator", &wrong);
    let cut = home.power_cut();
    assert!(!cut.holds(b"hunter2"), "only its fingerprint is kept");
    let journal = cut.open();
    assert!(journal.is_refused("arcgis.prod", "rotator", &wrong));
    assert!(!journal.is_refused("arcgis.prod", "rotator", &right), "a changed password is tried");
    assert!(!journal.is_refused("arcgis.test", "rotator", &wrong));
    assert!(!journal.is_refused("arcgis.prod", "other", &wrong));
    drop(journal);
    let journal = SqliteJournal::open(&cut.journal(), seal("b"), Mode::Existing).expect("it opens");
    assert!(journal.is_refused("arcgis.prod", "rotator", &right), "not comparable under another seal key");
    journal.forgive("arcgis.prod");
    assert!(!journal.is_refused("arcgis.prod", "rotator", &wrong));
    drop(journal);
    assert!(!cut.open().is_refused("arcgis.prod", "rotator", &wrong));
}

/// Each file of a journal is its owner's alone.
#[tokio::test]
async fn no_file_of_a_journal_is_readable_by_others() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 1).await;
    journal.reserve().await.expect("a ballast");
    let mut names: Vec<_> = home
        .0
        .path()
        .read_dir()
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("an entry");
            assert_eq!(entry.metadata().expect("about it").mode() & 0o777, 0o600, "{:?}", entry.file_name());
            entry.file_name().into_string().expect("a name")
        })
        .collect();
    names.sort();
    let expected = ["journal.db", "journal.db-shm", "journal.db-wal", "journal.db.ballast", "journal.db.lock"];
    assert_eq!(names, expected);
}

/// A changed byte in the log after its commit is not taken for an event.
#[tokio::test]
async fn a_flipped_bit_in_the_log_ends_it_there() {
    let home = Home::new();
    let journal = home.open();
    fill(&journal, "store", 5).await;
    let cut = home.power_cut();
    let path: &Path = &cut.0.path().join("journal.db-wal");
    let mut log = OpenOptions::new().read(true).write(true).open(path).expect("the log");
    let mut byte = [0];
    let end = log.seek(SeekFrom::End(-100)).expect("a place near its end");
    log.read_exact(&mut byte).expect("a byte");
    log.seek(SeekFrom::Start(end)).expect("back");
    log.write_all(&[byte[0] ^ 1]).expect("the flip");
    drop(log);
    let after = cut.open();
    let history = history(&after, "store").await;
    assert_eq!((history.records.len(), history.damage), (4, None));
}
