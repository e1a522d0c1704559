//! What is kept is what was there, whatever happened before.

use super::*;
use crate::definitions::{
    Change, Definitions, Destination, PasswordHash, QueueId, Registry, ShardIndex,
    fixture::{OWN, auto_delete, bind, bind_exchange, exchange, queue, table, text},
    permissions::Pattern,
};
use crate::protocol::field_table::{FieldTable, FieldValue};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

const SHARDS: u16 = 3;

/// All that outlives the process, one line for each thing.
fn durable_things(definitions: &Definitions) -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    for user in definitions.users() {
        things.insert(format!("user {} {:?} {:?}", user.name, user.password_hash.parts(), user.tags));
    }
    for it in definitions.all_permissions() {
        let [configure, write, read] = [&it.configure, &it.write, &it.read].map(Pattern::text);
        things.insert(format!("{} may in {}: '{configure}' '{write}' '{read}'", it.user, it.vhost));
    }
    for vhost in definitions.vhosts() {
        things.insert(format!("vhost {}", vhost.name));
        for queue in vhost.queues().filter(|queue| queue.durable) {
            things.insert(format!("{queue:?}"));
        }
        for exchange in vhost.exchanges().filter(|exchange| exchange.durable) {
            let is_durable = |destination: &Destination| match destination {
                Destination::Queue(queue) => queue.durable,
                Destination::Exchange(it) => vhost.exchange(it.1.as_bytes()).is_some_and(|it| it.durable),
            };
            // The numbers of those that every virtual host has are given anew.
            let number = if exchange.is_default() || exchange.name.starts_with("amq.") { 0 } else { exchange.id.0 };
            let exchange_text = format!(
                "exchange {number} {} {} {:?} {} {} {:?} {:?}",
                vhost.name,
                exchange.name,
                exchange.kind,
                exchange.auto_delete,
                exchange.internal,
                exchange.arguments,
                exchange.alternate
            );
            things.insert(exchange_text);
            for it in exchange.bindings().into_iter().filter(|it| is_durable(&it.destination)) {
                let kind = if matches!(it.destination, Destination::Queue(_)) { "queue" } else { "exchange" };
                let to = it.destination.name();
                let (key, arguments) = (&it.routing_key, it.arguments());
                things.insert(format!(
                    "{} {} to {kind} {to} {} {key:?} {arguments:?}",
                    vhost.name, exchange.name, it.sequence
                ));
            }
        }
    }
    things
}

/// Which things are there and should not be, or the other way round.
fn differences(found: &Definitions, expected: &Definitions) -> Vec<String> {
    let (found, expected) = (durable_things(found), durable_things(expected));
    found.symmetric_difference(&expected).cloned().collect()
}

fn restored(database: &Database) -> Registry {
    let kept = database.load().unwrap().expect("something was committed");
    Registry::restore(kept, SHARDS).unwrap()
}

/// Commits what the registry has to say, and returns it.
fn commit(database: &mut Database, registry: &mut Registry) -> DurableChanges {
    let changes = registry.take_durable();
    database.commit(&changes).unwrap();
    changes
}

/// One step of a random life: what is done, and to which of few names.
type Step = (u8, usize, usize, usize);

const QUEUES_NAMED: [&str; 3] = ["durable", "transient", "passing"];
const EXCHANGES_NAMED: [&str; 5] = ["lasting", "lasting auto", "transient", "transient auto", "amq.fanout"];

fn named_queue(vhost: &str, index: usize, home: usize) -> Change {
    let arguments = table(&[("x-max-length", FieldValue::I64(index.try_into().unwrap())), ("note", text("n"))]);
    Change::DeclareQueue {
        vhost: vhost.into(),
        name: QUEUES_NAMED[index % 3].into(),
        durable: index % 3 != 1,
        exclusive: false,
        auto_delete: index % 3 == 2,
        arguments,
        connection: OWN,
        home: ShardIndex(u16::try_from(home).unwrap() % SHARDS),
    }
}

fn named_exchange(vhost: &str, index: usize) -> Change {
    Change::DeclareExchange {
        vhost: vhost.into(),
        name: EXCHANGES_NAMED[index % 4].into(),
        kind: "fanout".into(),
        durable: index % 4 < 2,
        auto_delete: index % 2 == 1,
        internal: index == 0,
        arguments: table(&[("alternate-exchange", text("amq.topic"))]),
    }
}

/// The change that a step means; `None` for a step that ends the process.
fn change_of(registry: &Registry, (kind, a, b, c): Step) -> Option<Change> {
    let (vhost, routing_key): (crate::definitions::Name, Box<[u8]>) =
        (["/", "v"][c % 2].into(), [0xFF, 7][..c % 3 % 2].into());
    let arguments = if c == 0 { table(&[("x", FieldValue::Void)]) } else { FieldTable::default() };
    let (source, destination) = (EXCHANGES_NAMED[a % 5].into(), EXCHANGES_NAMED[b % 5].into());
    let (exchange, queue, connection) = (EXCHANGES_NAMED[a % 5].into(), QUEUES_NAMED[b % 3].into(), OWN);
    let user: crate::definitions::Name = ["ann", "bob"][a % 2].into();
    Some(match kind {
        0..=2 => named_queue(&vhost, a, b),
        3..=5 => named_exchange(&vhost, a),
        6..=8 => Change::BindQueue { vhost, exchange, queue, routing_key, arguments, connection },
        9..=11 => Change::BindExchange { vhost, source, destination, routing_key, arguments },
        12 => Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, connection },
        13 => Change::UnbindExchange { vhost, source, destination, routing_key, arguments },
        14 => Change::DeleteExchange { vhost, name: source, if_unused: false },
        15 => {
            let there = registry.current().vhost(vhost.as_bytes()).and_then(|it| it.queue(queue.as_bytes()));
            Change::RemoveQueue { id: there.map_or(QueueId(u64::MAX), |queue| queue.id) }
        }
        16 => {
            let password_hash = PasswordHash::salted_sha256(&[u8::try_from(b).unwrap()]);
            Change::PutUser { name: user, password_hash, tags: vec![format!("tag {b}"); b % 3] }
        }
        17 => Change::DeleteUser { name: user },
        18 => {
            Change::SetPermissions { user, vhost, configure: format!("^{b}"), write: String::new(), read: ".*".into() }
        }
        19 => Change::ClearPermissions { user, vhost },
        20 => Change::AddVhost { name: "v".into() },
        21 if a == 0 => Change::DeleteVhost { name: vhost },
        _ => return None,
    })
}

fn number_given(change: &DurableChange) -> Option<u64> {
    match change {
        DurableChange::PutQueue(queue) => Some(queue.id.0),
        DurableChange::PutExchange(exchange) => Some(exchange.id.0),
        DurableChange::PutBinding { binding, .. } => Some(binding.sequence),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    /// Goal: after a restart at any moment there is what was durable before, with the same numbers, and nothing else; no
    /// number of a durable thing is given again; and it is known before what may have to be kept.
    /// Method: random changes on few names, committed one by one, with restarts in between.
    #[test]
    fn restarts_lose_what_is_transient_only(
        steps in prop::collection::vec((0..24_u8, 0..5_usize, 0..5_usize, 0..4_usize), 1..80),
    ) {
        let mut database = Database::in_memory();
        let mut registry = Registry::new();
        commit(&mut database, &mut registry);
        let mut numbers = HashSet::new();
        for step in steps {
            let Some(change) = change_of(&registry, step) else {
                let mut again = restored(&database);
                prop_assert!(again.take_durable().is_empty());
                prop_assert_eq!(differences(again.current(), registry.current()), Vec::<String>::new());
                registry = again;
                continue;
            };
            let may_change = registry.may_change_durable(&change);
            let was_refused = registry.apply(change).is_err();
            let changes = commit(&mut database, &mut registry);
            prop_assert!(may_change || changes.is_empty(), "{step:?}");
            prop_assert!(!was_refused || changes.is_empty(), "{step:?}");
            for number in changes.changes.iter().filter_map(number_given) {
                prop_assert!(numbers.insert(number), "{number} is given again");
            }
        }
        prop_assert_eq!(differences(restored(&database).current(), registry.current()), Vec::<String>::new());
    }
}

/// Goal: a registry that came back goes on as it was: bindings route, what goes takes along what it should, and what changes
/// is told to be kept.
/// Method: a chain of auto-delete exchanges, restored, then taken down by the removal of its queue.
#[test]
fn restored_things_go_as_they_should() {
    let mut database = Database::in_memory();
    let mut registry = crate::definitions::fixture::registry_after([
        queue("q", &[]),
        auto_delete(exchange("x", "fanout", &[])),
        auto_delete(exchange("y", "topic", &[])),
        bind_exchange("x", "y", ""),
        bind("y", "q", "a.#"),
    ]);
    commit(&mut database, &mut registry);
    let mut registry = restored(&database);
    assert_eq!(crate::definitions::fixture::routed(&registry.snapshot(), "x", &["a.b"], &[0, 0]), ["q"]);
    assert!(!registry.may_change_durable(&bind("y", "q", "a.#")) && registry.may_change_durable(&bind("y", "q", "b")));
    let id = crate::definitions::fixture::declared(registry.apply(queue("q", &[]))).id;
    assert!(registry.take_durable().is_empty());
    registry.apply(Change::RemoveQueue { id }).unwrap();
    let changes = commit(&mut database, &mut registry);
    assert_eq!(changes.changes.len(), 5, "the queue, two exchanges, two bindings");
    let kept = database.load().unwrap().unwrap();
    assert!(kept.queues.is_empty() && kept.exchanges.is_empty() && kept.bindings.is_empty());
}

/// Goal: the epoch grows with each start, the first is 1, and a database that saw nothing else holds nothing.
/// Method: begin some, in the same and in another value.
#[test]
fn epochs_are_never_begun_twice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.redb");
    let mut database = Database::open(&file).unwrap();
    assert_eq!((database.begin_epoch().unwrap(), database.begin_epoch().unwrap()), (1, 2));
    drop(database);
    let mut database = Database::open(&file).unwrap();
    assert!(database.load().unwrap().is_none());
    assert_eq!(database.begin_epoch().unwrap(), 3);
    commit(&mut database, &mut Registry::new());
    let kept = database.load().unwrap().unwrap();
    assert_eq!((kept.vhosts.len(), kept.users.len(), kept.permissions.len()), (1, 1, 1));
}

/// Goal: nothing is committed where nothing is to be kept. Method: transient things, and what is there already.
#[test]
fn what_need_not_be_kept_costs_no_commit() {
    let mut database = Database::in_memory();
    let mut registry = Registry::new();
    registry.apply(queue("q", &[])).unwrap();
    registry.apply(bind("amq.direct", "q", "k")).unwrap();
    commit(&mut database, &mut registry);
    assert_eq!(database.commits, 1);
    let exclusive = Change::DeclareQueue {
        vhost: "/".into(),
        name: "mine".into(),
        durable: true,
        exclusive: true,
        auto_delete: false,
        arguments: FieldTable::default(),
        connection: OWN,
        home: ShardIndex(0),
    };
    let user = registry.current().user("guest").unwrap().clone();
    let same_user =
        Change::PutUser { name: user.name.clone(), password_hash: user.password_hash.clone(), tags: user.tags.clone() };
    let all = || ".*".to_owned();
    let same_permissions =
        Change::SetPermissions { user: "guest".into(), vhost: "/".into(), configure: all(), write: all(), read: all() };
    let changes = [
        queue("q", &[]),
        bind("amq.direct", "q", "k"),
        exclusive,
        bind("amq.direct", "mine", "k"),
        Change::AddVhost { name: "/".into() },
        same_user,
        same_permissions,
        Change::DeleteUser { name: "nobody".into() },
    ];
    for change in changes {
        let description = format!("{change:?}");
        registry.apply(change).unwrap();
        assert!(commit(&mut database, &mut registry).is_empty(), "{description}");
    }
    assert_eq!(database.commits, 1);
}

/// Goal: with fewer shards every queue has a home, the queues are spread, and the new homes are kept.
/// Method: ten queues on three shards, restored for two; then again.
#[test]
fn queues_whose_shard_is_gone_are_placed_anew() {
    let mut database = Database::in_memory();
    let mut registry = Registry::new();
    for number in 0..10 {
        let Change::DeclareQueue { vhost, durable, exclusive, auto_delete, arguments, connection, .. } =
            queue("q", &[])
        else {
            unreachable!("it is a queue")
        };
        let (name, home) = (format!("q{number}").into(), ShardIndex(number % 3));
        let change = Change::DeclareQueue { vhost, name, durable, exclusive, auto_delete, arguments, connection, home };
        registry.apply(change).unwrap();
    }
    commit(&mut database, &mut registry);
    let mut moved = Registry::restore(database.load().unwrap().unwrap(), 2).unwrap();
    let changes = commit(&mut database, &mut moved);
    assert_eq!(changes.changes.len(), 3);
    let mut again = Registry::restore(database.load().unwrap().unwrap(), 2).unwrap();
    assert!(again.take_durable().is_empty());
    let definitions = again.snapshot();
    let homes: Vec<_> = definitions.vhost(b"/").unwrap().queues().map(|queue| queue.home.0).collect();
    assert_eq!([0, 1].map(|shard| homes.iter().filter(|home| **home == shard).count()), [5, 5]);
}

/// Goal: a first start that was cut short is no obstacle to the next. Method: what it may leave; an empty file, too.
#[test]
fn a_making_that_was_cut_short_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.redb");
    std::fs::write(directory.path().join("definitions.redb.new"), [0; 4096]).unwrap();
    for epoch in 1..3 {
        assert_eq!(Database::open(&file).unwrap().begin_epoch().unwrap(), epoch);
        assert!(!directory.path().join("definitions.redb.new").exists());
    }
    std::fs::write(&file, "").unwrap();
    assert_eq!(Database::open(&file).unwrap().begin_epoch().unwrap(), 1);
}

fn check_unreadable(spoil: impl FnOnce(&WriteTransaction), expected: &str) {
    let mut database = Database::in_memory();
    let mut registry = Registry::new();
    for change in [queue("q", &[]), exchange("x", "topic", &[]), bind("x", "q", "k")] {
        registry.apply(change).unwrap();
    }
    commit(&mut database, &mut registry);
    let transaction = database.database.begin_write().unwrap();
    spoil(&transaction);
    transaction.commit().unwrap();
    let error = match database.load() {
        Err(error) => error.to_string(),
        Ok(kept) => match Registry::restore(kept.unwrap(), 1) {
            Err(error) => format!("{}: {}", error.what, error.reason),
            Ok(_) => panic!("'{expected}' was expected"),
        },
    };
    assert!(error.contains(expected), "{error}");
}

/// Goal: what cannot be read or contradicts itself is said, with its key, and not left out.
/// Method: spoil one value in each way.
#[test]
fn what_cannot_be_read_is_said() {
    let queues = |transaction: &WriteTransaction| {
        let table = transaction.open_table(QUEUES).unwrap();
        let (key, value) = table.first().unwrap().unwrap();
        (key.value(), value.value().to_vec())
    };
    check_unreadable(
        |it| {
            let (id, value) = queues(it);
            it.open_table(QUEUES).unwrap().insert(id, &value[..value.len() - 1]).unwrap();
        },
        "queue 8 cannot be read: its fields cannot be read",
    );
    check_unreadable(
        |it| {
            let (id, _) = queues(it);
            it.open_table(QUEUES).unwrap().insert(id, &[][..]).unwrap();
        },
        "queue 8 cannot be read: its field 'home' is missing",
    );
    check_unreadable(
        |it| {
            let (_, value) = queues(it);
            it.open_table(QUEUES).unwrap().insert(9000, &*value).unwrap();
        },
        "queue 9000 'q' in vhost '/': its number is above the last one",
    );
    check_unreadable(
        |it| {
            let (_, value) = queues(it);
            it.open_table(QUEUES).unwrap().insert(3, &*value).unwrap();
        },
        "queue 8 'q' in vhost '/': there are two of this name",
    );
    check_unreadable(
        |it| {
            let (id, _) = queues(it);
            it.open_table(QUEUES).unwrap().remove(id).unwrap();
        },
        "binding 10 of exchange 'x' in vhost '/': its queue 'q' is not there",
    );
    check_unreadable(
        |it| {
            let value = it.open_table(EXCHANGES).unwrap().first().unwrap().unwrap().1.value().to_vec();
            it.open_table(EXCHANGES).unwrap().insert(8, &*value).unwrap();
        },
        "exchange 9 'x' in vhost '/': there are two of this name",
    );
    check_unreadable(|it| drop(it.open_table(VHOSTS).unwrap().remove("/").unwrap()), "vhost / not found");
    check_unreadable(
        |it| drop(it.open_table(USERS).unwrap().remove("guest").unwrap()),
        "permissions of user 'guest' in vhost '/': NOT_FOUND - no user 'guest'",
    );
    check_unreadable(|it| assert!(it.delete_table(QUEUES).unwrap()), "is damaged");
}

/// Goal: a file in a layout that is not known is refused, and so is one that is no database.
/// Method: another number, none, text.
#[test]
fn other_files_are_refused() {
    let check = |file: &Path, expected: &str| {
        let error = Database::open(file).err().expect("refused").to_string();
        assert!(error.contains(expected) && error.contains(file.to_str().unwrap()), "{error}");
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.redb");
    let spoil = |layout: Option<u64>| {
        let database = redb::Database::create(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        match layout {
            Some(layout) => drop(meta.insert("layout", layout).unwrap()),
            None => drop(meta.remove("layout").unwrap()),
        }
        drop(meta);
        transaction.commit().unwrap();
    };
    Database::open(&file).unwrap().begin_epoch().unwrap();
    spoil(Some(2));
    check(&file, "its layout is number 2, this version of lepus knows number 1 only");
    spoil(None);
    check(&file, "does not say in which layout");
    std::fs::write(&file, "dear diary".repeat(1000)).unwrap();
    check(&file, "it is not a database of lepus");
    check(directory.path(), "directory");
    let open = redb::Database::create(directory.path().join("open")).unwrap();
    check(&directory.path().join("open"), "another program has it open");
    drop(open);
}

/// Goal: damage is said: no start without what was there, and no panic.
/// Method: flip bits all over the file, and cut it at each page, of a database that was not closed; what is opened all the same
/// must hold all.
#[test]
fn damage_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.redb");
    let mut database = Database::open(&file).unwrap();
    database.begin_epoch().unwrap();
    let mut registry = Registry::new();
    for number in 0..100 {
        registry.apply(queue(&format!("q{number}"), &[])).unwrap();
        registry.apply(bind("amq.direct", &format!("q{number}"), "k")).unwrap();
        if number % 10 == 0 {
            commit(&mut database, &mut registry);
        }
    }
    commit(&mut database, &mut registry);
    let octets = std::fs::read(&file).unwrap();
    drop(database);
    let open = |octets: &[u8]| {
        let backend = InMemoryBackend::new();
        backend.set_len(octets.len() as u64).unwrap();
        backend.write(0, octets).unwrap();
        Database::with_backend(backend, &file)?.try_load()
    };
    let check = |octets: &[u8], what: &str| match open(octets) {
        Ok(kept) => {
            let again = Registry::restore(kept.unwrap_or_else(|| panic!("{what}: it is empty")), SHARDS).unwrap();
            assert_eq!(differences(again.current(), registry.current()), Vec::<String>::new(), "{what}");
            true
        }
        Err(fault) => {
            assert!(!fault.0.is_empty());
            false
        }
    };
    assert!(check(&octets, "nothing"));
    // The octet before names the valid half of the header: nothing can tell that it was flipped.
    let is_sound = (10..octets.len()).step_by(101).map(|at| {
        let mut damaged = octets.clone();
        damaged[at] ^= 1 << (at % 8);
        check(&damaged, &format!("a bit at {at}"))
    });
    assert!(is_sound.filter(|it| !it).count() > 100);
    for length in (4096..octets.len()).step_by(4096) {
        assert!(!check(&octets[..length], &format!("cut at {length}")));
    }
}
