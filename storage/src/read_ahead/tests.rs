//! Bounds of what is on its way. What is read, and forgotten, is tested with the store (`crate::tests::read_ahead`).

use super::*;

#[test]
fn what_is_on_its_way_is_bounded_and_less_beside_commits() {
    let config = ReadAheadConfig {
        bytes_max: 10 << 20,
        in_flight_bytes_max: 8 << 20,
        in_flight_bytes_beside_commits: 2 << 20,
        ..ReadAheadConfig::default()
    };
    let ahead = ReadAhead::new(config);
    let room = |in_flight: usize, cost: usize| {
        ahead.in_flight_bytes.set(in_flight << 20);
        (ahead.has_room(cost << 20, false), ahead.has_room(cost << 20, true))
    };
    assert_eq!(room(0, 4), (true, true), "one may always be on its way");
    assert_eq!(room(1, 1), (true, true));
    assert_eq!(room(2, 1), (true, false));
    assert_eq!(room(7, 1), (true, false));
    assert_eq!(room(8, 1), (false, false));
    assert_eq!(room(0, 11), (false, false), "it would be too much memory");

    let ahead = ReadAhead::new(ReadAheadConfig { in_flight_bytes_beside_commits: 0, ..ahead.config.clone() });
    assert!(ahead.has_room(1, false) && !ahead.has_room(1, true), "nothing is begun beside commits");
}

#[test]
fn a_read_that_is_given_up_is_over() {
    let ahead = ReadAhead::new(ReadAheadConfig::default());
    let name: Rc<str> = "a".into();
    for n in 0..3 {
        ahead.readers.borrow_mut().went((1, &name), n..n + 1, &ahead.config);
    }
    let wants = || ahead.readers.borrow().wants().len();
    let reading = ahead.begins(1, 3);
    assert_eq!(wants(), 0);
    drop(reading);
    assert_eq!(wants(), 1);
}
