//! Random commands against a naive twin: after each command both must agree, and the log replayed from scratch, and the
//! image's own records, must give the same image.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c.d", "c_d", "bad name", "e"];
const KEYS: [&str; 4] = ["retention.ms", "flush.messages", "cleanup.policy", "nonsense"];
const VALUES: [&str; 4] = ["1", "compact", "delete", "-7"];

#[derive(Clone, Debug)]
enum Step {
    Create { name: usize, partitions: i32, key: Option<(usize, usize)>, validate_only: bool },
    Delete { name: usize, by_id: bool },
    Grow { name: usize, count: i32 },
    Edit { name: usize, key: usize, operation: i8, value: usize },
    Allocate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = (0..KEYS.len(), 0..VALUES.len());
    let step = prop_oneof![
        3 => (0..NAMES.len(), -2..9i32, proptest::option::of(key), proptest::bool::weighted(0.1)).prop_map(
            |(name, partitions, key, validate_only)| Step::Create { name, partitions, key, validate_only }
        ),
        1 => (0..NAMES.len(), any::<bool>()).prop_map(|(name, by_id)| Step::Delete { name, by_id }),
        2 => (0..NAMES.len(), 0..12i32).prop_map(|(name, count)| Step::Grow { name, count }),
        2 => (0..NAMES.len(), 0..KEYS.len(), 0..2i8, 0..VALUES.len())
            .prop_map(|(name, key, operation, value)| Step::Edit { name, key, operation, value }),
        1 => Just(Step::Allocate),
    ];
    proptest::collection::vec(step, 0..40)
}

/// Name to number of partitions and configs.
type Twin = BTreeMap<String, (usize, BTreeMap<String, String>)>;

fn allowed(key: &str, value: &str) -> bool {
    match key {
        "retention.ms" | "flush.messages" => value == "1",
        "cleanup.policy" => value == "compact" || value == "delete",
        _ => false,
    }
}

fn apply(twin: &mut Twin, step: &Step) {
    match step {
        Step::Create { name, partitions, key, validate_only } => {
            let name = NAMES[*name];
            let collides = twin.keys().any(|other| other.replace('.', "_") == name.replace('.', "_"));
            let pair = key.map(|(key, value)| (KEYS[key], VALUES[value]));
            let fine = pair.is_none_or(|(key, value)| allowed(key, value));
            if !name.contains(' ')
                && !collides
                && fine
                && !validate_only
                && (*partitions == -1 || *partitions > 0)
            {
                let count = if *partitions == -1 { 1 } else { usize::try_from(*partitions).unwrap() };
                let configs =
                    pair.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
                twin.insert(name.to_owned(), (count, configs));
            }
        }
        Step::Delete { name, .. } => _ = twin.remove(NAMES[*name]),
        Step::Grow { name, count } => {
            if let Some((now, _)) = twin.get_mut(NAMES[*name]) {
                *now = (*now).max(usize::try_from(*count).unwrap());
            }
        }
        Step::Edit { name, key, operation, value } => {
            if let Some((_, configs)) = twin.get_mut(NAMES[*name]) {
                if *operation == 1 {
                    configs.remove(KEYS[*key]);
                } else if allowed(KEYS[*key], VALUES[*value]) {
                    configs.insert(KEYS[*key].to_owned(), VALUES[*value].to_owned());
                }
            }
        }
        Step::Allocate => {}
    }
}

fn drive(bench: &mut Bench, step: &Step) {
    match step {
        Step::Create { name, partitions, key, validate_only } => {
            let configs = key.map(|(key, value)| (KEYS[key], Some(VALUES[value])));
            let configs: Vec<_> = configs.into_iter().collect();
            let wanted = CreatableTopic { num_partitions: *partitions, ..configured(NAMES[*name], &configs) };
            bench.create(vec![wanted], *validate_only);
        }
        Step::Delete { name, by_id: false } => _ = bench.delete(vec![(Some(NAMES[*name]), Uuid::ZERO)]),
        Step::Delete { name, by_id: true } => {
            let id = bench.machine.image().topic(NAMES[*name]).map_or(Uuid([255; 16]), |topic| topic.id);
            bench.delete(vec![(None, id)]);
        }
        Step::Grow { name, count } => _ = bench.grow(NAMES[*name], *count, None),
        Step::Edit { name, key, operation, value } => {
            bench.edit(resource_type::TOPIC, NAMES[*name], &[(KEYS[*key], *operation, Some(VALUES[*value]))]);
        }
        Step::Allocate => _ = bench.run(&Command::AllocateProducerIds),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn agrees_with_a_naive_twin(steps in steps(), shards in 1usize..5) {
        let mut bench = Bench::new(&[], shards);
        let mut twin = Twin::new();
        for step in &steps {
            drive(&mut bench, step);
            apply(&mut twin, step);
            let image = bench.machine.image();
            let seen: Twin = image
                .topics()
                .map(|topic| (topic.name.to_string(), (topic.partitions.len(), topic.overrides.clone())))
                .collect();
            prop_assert_eq!(&seen, &twin, "after {:?}", step);
            prop_assert_eq!(image.partitions_len(), twin.values().map(|(count, _)| count).sum::<usize>());
            for topic in image.topics() {
                prop_assert_eq!(image.topic_by_id(topic.id).map(|topic| &topic.name), Some(&topic.name));
            }
        }
        let image = bench.machine.image();
        let broker = (**image.broker()).clone();
        let replayed = |records: &[MetadataRecord]| {
            let mut machine = MetadataMachine::new(text("cluster"), broker.clone(), shards);
            records.iter().for_each(|record| machine.replay(record).unwrap());
            machine
        };
        let again = replayed(&bench.log);
        prop_assert_eq!(again.image(), image);
        let compacted = replayed(&image.records().collect::<Vec<_>>());
        prop_assert_eq!(&compacted.collisions, &bench.machine.collisions);
        prop_assert_eq!(&compacted.shard_loads, &bench.machine.shard_loads);
        let same = MetadataImage { revision: image.revision(), ..compacted.image().clone() };
        prop_assert_eq!(&same, image);
    }
}
