//! Medians over rounds, ratios between peers, and whether goals are met. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::peer::PeerKind;
use super::scenario::Goal;

/// Medians of a scenario's cells by peer; nothing for a peer whose cells all failed.
pub(super) type Medians = BTreeMap<PeerKind, Value>;

/// How a goal was met.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Penstock's figure by the peer's; none where one is missing.
    pub(super) ratio: Option<f64>,
    /// None where there is no ratio.
    pub(super) is_met: Option<bool>,
}

/// The median of each number that all cells have in the same place. Of an even count it is the mean of the middle two.
pub(super) fn medians(cells: &[Value]) -> Value {
    let Some(first) = cells.first() else { return Value::Null };
    if let Some(fields) = first.as_object() {
        let mut merged = Map::new();
        for name in fields.keys() {
            let inner: Option<Vec<Value>> = cells.iter().map(|cell| cell.get(name).cloned()).collect();
            match inner.map_or(Value::Null, |inner| medians(&inner)) {
                Value::Null => {}
                median => {
                    merged.insert(name.clone(), median);
                }
            }
        }
        return Value::Object(merged);
    }
    let numbers: Option<Vec<f64>> = cells.iter().map(Value::as_f64).collect();
    numbers.and_then(median).map_or(Value::Null, |median| json!(median))
}

/// Of finite numbers.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(numbers[middle - 1], numbers[middle])),
        _ => Some(numbers[middle]),
    }
}

/// The number at `pointer` in a peer's medians.
pub(super) fn number(medians: &Medians, peer: PeerKind, pointer: &str) -> Option<f64> {
    medians.get(&peer)?.pointer(pointer)?.as_f64()
}

/// The lowest of the peers' numbers at `pointer`; none where one of them has none.
pub(super) fn slowest(medians: &Medians, peers: &[PeerKind], pointer: &str) -> Option<f64> {
    let numbers: Option<Vec<f64>> = peers.iter().map(|peer| number(medians, *peer, pointer)).collect();
    numbers?.into_iter().reduce(f64::min)
}

/// Judges a goal. On the line it is met.
pub(super) fn judge(goal: &Goal, medians: &Medians) -> Verdict {
    let own = number(medians, PeerKind::Penstock, &goal.figure);
    let other = number(medians, goal.against, &goal.figure).filter(|other| *other > 0.0);
    let ratio = own.zip(other).map(|(own, other)| own / other);
    let is_met = ratio.map(|ratio| {
        goal.at_least.is_none_or(|least| ratio >= least) && goal.at_most.is_none_or(|most| ratio <= most)
    });
    Verdict { ratio, is_met }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(at_least: Option<f64>, at_most: Option<f64>) -> Goal {
        Goal { figure: "/a/b".to_owned(), against: PeerKind::Kafka, at_least, at_most, why: None }
    }

    fn of(own: Value, other: Value) -> Medians {
        BTreeMap::from([(PeerKind::Penstock, own), (PeerKind::Kafka, other)])
    }

    #[test]
    fn medians_are_taken_place_by_place() {
        let cells = [
            json!({ "a": { "b": 3, "name": "x" }, "c": 1 }),
            json!({ "a": { "b": 1.0, "name": "x" } }),
            json!({ "a": { "b": 2, "name": "x" }, "c": 1 }),
        ];
        assert_eq!(medians(&cells), json!({ "a": { "b": 2.0 } }), "what one cell lacks has no median");
        assert_eq!(medians(&cells[..2]), json!({ "a": { "b": 2.0 } }), "the mean of the middle two");
        assert_eq!(medians(&[]), Value::Null);
    }

    #[test]
    fn goals_are_ratios_with_a_line() {
        let found = of(json!({ "a": { "b": 30 } }), json!({ "a": { "b": 10 } }));
        assert_eq!(judge(&goal(Some(3.0), None), &found), Verdict { ratio: Some(3.0), is_met: Some(true) });
        assert_eq!(judge(&goal(Some(3.1), None), &found).is_met, Some(false));
        assert_eq!(judge(&goal(None, Some(0.5)), &found).is_met, Some(false));
        assert_eq!(judge(&goal(None, Some(3.0)), &found).is_met, Some(true));
        let unknown = Verdict { ratio: None, is_met: None };
        assert_eq!(judge(&goal(Some(3.0), None), &of(json!({}), json!({ "a": { "b": 1 } }))), unknown);
        assert_eq!(judge(&goal(Some(3.0), None), &of(json!({ "a": { "b": 1 } }), Value::Null)), unknown);
        let nothing = of(json!({ "a": { "b": 1 } }), json!({ "a": { "b": 0 } }));
        assert_eq!(judge(&goal(Some(3.0), None), &nothing), unknown, "nothing goes through is no ratio");
    }

    #[test]
    fn the_slowest_is_known_only_with_all() {
        let found = of(json!({ "r": 5 }), json!({ "r": 3 }));
        assert_eq!(slowest(&found, &[PeerKind::Penstock, PeerKind::Kafka], "/r"), Some(3.0));
        assert_eq!(slowest(&found, &PeerKind::all(), "/r"), None);
    }
}
