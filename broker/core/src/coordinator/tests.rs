//! The runtime with a machine that adds numbers: what is shown, held, taken back.

use penstock_protocol::ErrorCode;

use super::*;

/// A sum; each request adds to it and is answered with it. 0 only reads.
#[derive(Default)]
struct Sum {
    sum: i64,
    resumed: Vec<Result<(), ErrorCode>>,
}

#[derive(Debug, PartialEq)]
struct Answer(Result<i64, ErrorCode>);

impl Refusable for Answer {
    fn refused(self, code: ErrorCode) -> Answer {
        Answer(Err(code))
    }
}

impl Machine for Sum {
    type Request = i64;
    type Response = Answer;
    type Record = i64;
    type Undo = i64;
    type Resume = ();

    fn handle(&mut self, add: i64, to: RequestId, _: i64, out: &mut Outbox<Sum>) {
        let answer = Answer(Ok(self.sum + add));
        if add == 0 {
            out.answer_when_durable(to, answer)
        } else {
            out.write(vec![add], Some((to, answer)), Some(()))
        }
    }

    fn refuse(_: &i64, code: ErrorCode) -> Answer {
        Answer(Err(code))
    }

    fn replay(&mut self, add: &i64, _: Origin, _: i64) -> Option<i64> {
        self.sum += add;
        Some(*add)
    }

    fn revert(&mut self, added: i64) {
        self.sum -= added;
    }

    fn resume(&mut self, (): (), result: Result<(), ErrorCode>, _: i64, _: &mut Outbox<Sum>) {
        self.resumed.push(result);
    }

    fn poll_timeout(&self) -> Option<i64> {
        (self.sum > 100).then_some(50)
    }

    fn handle_timeout(&mut self, _: i64, out: &mut Outbox<Sum>) {
        out.write(vec![-self.sum], None, None);
    }

    fn loaded(&mut self, _: i64, _: &mut Outbox<Sum>) {}

    fn unload(&mut self, _: ErrorCode, _: &mut Outbox<Sum>) {}
}

fn serving() -> Partitions<Sum> {
    let mut partitions = Partitions::default();
    partitions.begin(3, Sum::default());
    partitions.load(3, &10, 0);
    partitions.loaded(3, 0);
    partitions
}

fn effects(partitions: &mut Partitions<Sum>) -> Vec<Effect<i64, Answer>> {
    std::iter::from_fn(|| partitions.poll_effect()).collect()
}

fn append(append: u64, record: i64) -> Effect<i64, Answer> {
    Effect::Append { partition: 3, append: AppendId(append), records: vec![record] }
}

fn reply(to: u64, answer: Result<i64, ErrorCode>) -> Effect<i64, Answer> {
    Effect::Reply { to: RequestId(to), response: Answer(answer) }
}

#[test]
fn answers_wait_for_what_they_tell_of() {
    let mut partitions = serving();
    partitions.handle(3, 0, RequestId(1), 0);
    assert_eq!(effects(&mut partitions), [reply(1, Ok(10))], "nothing is under way");
    partitions.handle(3, 5, RequestId(2), 0);
    partitions.handle(3, 0, RequestId(3), 0);
    partitions.handle(3, 6, RequestId(4), 0);
    assert_eq!(effects(&mut partitions), [append(1, 5), append(2, 6)]);
    partitions.append_done(3, AppendId(1), 0);
    assert_eq!(effects(&mut partitions), [reply(2, Ok(15)), reply(3, Ok(15))]);
    partitions.append_done(3, AppendId(2), 0);
    partitions.append_done(3, AppendId(2), 0);
    assert_eq!(effects(&mut partitions), [reply(4, Ok(21))]);
    assert_eq!(partitions.machine(3).map(|machine| machine.resumed.len()), Some(2));
}

#[test]
fn a_report_stands_for_all_before_it() {
    let mut partitions = serving();
    partitions.handle(3, 5, RequestId(1), 0);
    partitions.handle(3, 6, RequestId(2), 0);
    assert_eq!(effects(&mut partitions).len(), 2);
    partitions.append_done(3, AppendId(2), 0);
    assert_eq!(effects(&mut partitions), [reply(1, Ok(15)), reply(2, Ok(21))]);
}

#[test]
fn a_failed_append_takes_all_behind_it_back() {
    let mut partitions = serving();
    for (to, add) in [(1, 5), (2, 6), (3, 0), (4, 7)] {
        partitions.handle(3, add, RequestId(to), 0);
    }
    assert_eq!(partitions.poll_effect(), Some(append(1, 5)));
    assert_eq!(partitions.poll_effect(), Some(append(2, 6)));
    partitions.append_failed(3, AppendId(2), ErrorCode::MessageTooLarge, 0);
    let refused = [
        reply(2, Err(ErrorCode::MessageTooLarge)),
        reply(3, Err(ErrorCode::MessageTooLarge)),
        reply(4, Err(ErrorCode::CoordinatorNotAvailable)),
    ];
    assert_eq!(effects(&mut partitions), refused, "and the third append is withdrawn");
    assert_eq!(partitions.machine(3).map(|machine| machine.sum), Some(15));
    partitions.handle(3, 1, RequestId(5), 0);
    assert_eq!(effects(&mut partitions), [append(4, 1)]);
    partitions.append_done(3, AppendId(4), 0);
    assert_eq!(effects(&mut partitions), [reply(1, Ok(15)), reply(5, Ok(16))]);
}

#[test]
fn partitions_that_do_not_serve_say_so() {
    let mut partitions = serving();
    partitions.handle(4, 1, RequestId(1), 0);
    partitions.begin(4, Sum::default());
    partitions.handle(4, 1, RequestId(2), 0);
    let codes = [ErrorCode::NotCoordinator, ErrorCode::CoordinatorLoadInProgress];
    assert_eq!(effects(&mut partitions), [reply(1, Err(codes[0])), reply(2, Err(codes[1]))]);
    assert_eq!(partitions.serving().collect::<Vec<i32>>(), [3]);
}

#[test]
fn late_reports_of_an_earlier_life_are_ignored() {
    let mut partitions = serving();
    partitions.handle(3, 5, RequestId(1), 0);
    assert_eq!(effects(&mut partitions), [append(1, 5)]);
    partitions.unload(3, ErrorCode::NotCoordinator);
    assert_eq!(effects(&mut partitions), [reply(1, Err(ErrorCode::NotCoordinator))]);
    partitions.begin(3, Sum::default());
    partitions.loaded(3, 0);
    partitions.handle(3, 7, RequestId(2), 0);
    assert_eq!(effects(&mut partitions), [append(2, 7)]);
    partitions.append_done(3, AppendId(1), 0);
    partitions.append_failed(3, AppendId(9), ErrorCode::KafkaStorageError, 0);
    assert_eq!(effects(&mut partitions), []);
    partitions.append_done(3, AppendId(2), 0);
    assert_eq!(effects(&mut partitions), [reply(2, Ok(7))]);
}

#[test]
fn too_many_appends_are_refused() {
    let mut partitions = serving();
    for to in 0..=APPENDS_IN_FLIGHT_MAX as u64 {
        partitions.handle(3, 1, RequestId(to), 0);
    }
    let mut seen = effects(&mut partitions);
    let last = reply(APPENDS_IN_FLIGHT_MAX as u64, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(seen.pop(), Some(last));
    assert_eq!(seen.len(), APPENDS_IN_FLIGHT_MAX);
}

#[test]
fn timers_fire_in_order_and_can_be_moved() {
    let mut partitions = serving();
    assert_eq!(partitions.poll_timeout(), None);
    partitions.handle(3, 100, RequestId(1), 0);
    assert_eq!(partitions.poll_timeout(), Some(50));
    partitions.handle_timeout(49);
    assert_eq!(effects(&mut partitions), [append(1, 100)]);
    partitions.handle_timeout(50);
    assert_eq!(effects(&mut partitions), [append(2, -110)]);

    let mut timers = Timers::default();
    timers.set("a", 10);
    timers.set("b", 5);
    timers.set("a", 3);
    timers.set("c", 4);
    timers.cancel(&"c");
    assert_eq!(timers.next(), Some(3));
    assert_eq!((timers.take_due(2), timers.take_due(9)), (None, Some("a")));
    assert_eq!((timers.take_due(9), timers.take_due(9)), (Some("b"), None));
}
