"""Judging and tables, on output as the runner prints it: `python3 -m unittest discover -s broker/tests/suites`."""

import pathlib
import tempfile
import unittest

import attempts
import kafka_python
import librdkafka
import results
import rust

PASSED = """\
[0018_cgrp_term              / 10.304s] \x1b[35m[ do_test:194: with_queue=false ]
[0018_cgrp_term              / 10.304s] \x1b[32m[ do_test:194: with_queue=false: PASS (10.30s) ]
[0018_cgrp_term              / 23.955s] \x1b[33m[ do_other:383: SKIP: not here ]
[0018_cgrp_term              / 23.955s] \x1b[32m================= Test 0018_cgrp_term PASSED =================\x1b[0m
============== ALL TESTS PASSED ==============
"""
DECLINED = """\
[0098_consumer_txn           /  0.000s] WARN: SKIPPING TEST: needs a test tool
[0098_consumer_txn           /  0.001s] ================= Test 0098_consumer_txn SKIPPED =================
| <MAIN>                                   |     PASSED |   1.001s |
============== ALL TESTS PASSED ==============
"""
FAILED = """\
[0055_producer_latency       / 37.233s] \x1b[35m[ test_producer_latency:187: transactions (35ms) ]
[0055_producer_latency       / 47.234s] TEST FAILURE
\x1b[0m\x1b[31m### Test "0055_producer_latency (test_producer_latency:187: transactions (35ms))" failed at \
0055-producer_latency.c:211:test_producer_latency() at Sat Nov 21 05:33:14 2026: ###
rd_kafka_init_transactions(rk, 10 * 1000) failed: Timed out
\x1b[31m### Test "<MAIN>" failed at test.c:1950:test_wait_exit() at Sat Nov 21 05:33:16 2026: ###
4 thread(s) still active in librdkafka
"""
EARLY_ANSWER = """\
\x1b[31m### Test "0057_invalid_topic" failed at testcpp.h:77:() at Mon Nov 23 15:15:01 2026: ###
test_invalid_topic:%s: Expected Broker: Invalid topic, got %s
"""
EARLY = "test_invalid_topic:90: Expected Broker: Invalid topic, got Local: Unknown topic"
RAN_NOTHING = """\
| <MAIN>                                   |     PASSED |   0.001s |
============== ALL TESTS PASSED ==============
"""


class Judging(unittest.TestCase):
    def test_a_test_passes_by_its_own_line(self):
        self.assertEqual(librdkafka.judge("0018", PASSED, 0), ("pass", 1, 1, ""))

    def test_the_line_of_another_test_shows_nothing(self):
        self.assertEqual(librdkafka.judge("0019", PASSED, 0)[0], "skip")

    def test_one_that_declined_is_skipped_although_the_runner_passed(self):
        self.assertEqual(librdkafka.judge("0098", DECLINED, 0), ("skip", 0, 0, "needs a test tool"))

    def test_one_that_never_ran_is_skipped_although_the_runner_passed(self):
        self.assertEqual(librdkafka.judge("0001", RAN_NOTHING, 0), ("skip", 0, 0, "ran nothing"))

    def test_a_test_without_the_subtests_asked_for_fails(self):
        self.assertEqual(librdkafka.judge("0018", PASSED, 0, "queue")[0], "pass")
        without = PASSED.replace(": PASS (", ": LEFT (")
        self.assertEqual(librdkafka.judge("0018", without, 0, "queue"),
                         ("fail", 0, 1, "no subtest with queue in its name passed"))

    def test_a_failure_gives_its_first_message(self):
        self.assertEqual(librdkafka.judge("0055", FAILED, -6), (
            "fail", 0, 0, "rd_kafka_init_transactions(rk, 10 * 1000) failed: Timed out"))

    def test_a_passing_line_does_not_excuse_the_exit_status(self):
        self.assertEqual(librdkafka.judge("0018", PASSED, -11)[0], "fail")

    def test_one_over_the_limit_tells_where_it_was(self):
        begun = PASSED.splitlines()[0]
        self.assertEqual(librdkafka.judge("0018", begun, None),
                         ("fail", 0, 0, "no end within the time limit, last in do_test:194: with_queue=false"))

    def test_the_early_answer_to_0057_is_the_clients_own_fault_and_nothing_else_is(self):
        failed = EARLY_ANSWER % ("90", "Local: Unknown topic")
        result, _, _, why = librdkafka.judge("0057", failed, -6)
        self.assertEqual((result, librdkafka.client_fault("0057", why)), ("fail", "had its answer too early"))
        self.assertEqual(librdkafka.client_fault("0055", why), "")
        for line, error in (("62", "Local: Unknown topic"), ("90", "Broker: Unknown topic or partition")):
            why = librdkafka.judge("0057", EARLY_ANSWER % (line, error), -6)[3]
            self.assertEqual(librdkafka.client_fault("0057", why), "")

    def test_a_test_is_repeated_for_the_clients_own_fault_alone(self):
        too_early = "had its answer too early"
        for whys, wanted in (
                ([EARLY, ""], ("pass", f"(attempt 2: before, the client itself {too_early})")),
                ([EARLY] * 3, ("fail", f"{EARLY} (attempt 3: before, the client itself {too_early}, {too_early})")),
                (["timed out"], ("fail", "timed out"))):
            with tempfile.TemporaryDirectory() as directory:
                log = pathlib.Path(directory, "0057.log")
                left = iter(whys)

                def once():
                    why = next(left)
                    log.write_text(why)
                    return results.Outcome("fail" if why else "pass", 1.0, 0, 0, why)

                outcome = attempts.outcome_of(once, lambda failed: librdkafka.client_fault("0057", failed.why), log)
                self.assertEqual((outcome.result, outcome.why), wanted)
                logs = [log.with_stem(f"0057-{n + 1}") for n in range(len(whys) - 1)] + [log]
                self.assertEqual([one.read_text() for one in logs], whys)
                self.assertEqual(len(list(log.parent.iterdir())), len(whys))


CASE = """\
<testsuites><testsuite><testcase classname="test.integration" name="test_group" time="2.1">%s</testcase></testsuite>\
</testsuites>"""


class JudgingPytest(unittest.TestCase):
    def test_one_case_without_a_complaint_passes(self):
        self.assertEqual(kafka_python.judge(CASE % "", 0), ("pass", ""))

    def test_a_skipped_case_shows_nothing(self):
        self.assertEqual(kafka_python.judge(CASE % '<skipped message="needs more"/>', 0), ("skip", "needs more"))

    def test_a_failure_gives_the_first_line_of_its_message(self):
        self.assertEqual(kafka_python.judge(CASE % '<failure message="a&#10;b"/>', 1), ("fail", "a"))

    def test_no_case_fails_although_the_runner_passed(self):
        self.assertEqual(kafka_python.judge("<testsuites/>", 0)[0], "fail")
        self.assertEqual(kafka_python.judge("", 4), ("fail", "exit status 4"))

    def test_a_passing_case_does_not_excuse_the_exit_status(self):
        self.assertEqual(kafka_python.judge(CASE % "", 1), ("fail", "exit status 1"))

    def test_one_over_the_limit_fails(self):
        self.assertEqual(kafka_python.judge("", None), ("fail", "no end within the time limit"))


ASKS_NOTHING = "17:02:02.1 DEBUG 14:kafka-io-1 kafka.cluster Sending metadata request MetadataRequest(topics=[], x=1)\n"
ASKS = "17:02:02.1 DEBUG 14:kafka-io-1 kafka.cluster Sending metadata request MetadataRequest(topics=['a'], x=1)\n"
SUBSCRIBES = "17:02:02.1 DEBUG 12:MainThread kafka.consumer.group Subscribed to topic(s): ['a']\n"
# What a consumer says that is given its topics as it is made.
MADE_WITH = "17:02:02.1 INFO 12:MainThread kafka.consumer.subscription_state Updating subscribed topics to: ('a',)\n"
UPDATED = "17:02:02.1 INFO 14:kafka-io-1 kafka.cluster Updated metadata: ClusterMetadata(brokers: 1, topics: 0)\n"


class MissedSubscription(unittest.TestCase):
    def test_one_that_asked_nothing_after_the_answer_to_nothing_missed_it(self):
        self.assertTrue(kafka_python.missed_subscription(ASKS_NOTHING + SUBSCRIBES + UPDATED))
        self.assertTrue(kafka_python.missed_subscription(ASKS_NOTHING + MADE_WITH + UPDATED))

    def test_one_that_asked_again_did_not(self):
        self.assertFalse(kafka_python.missed_subscription(ASKS_NOTHING + SUBSCRIBES + UPDATED + ASKS))
        self.assertFalse(kafka_python.missed_subscription(ASKS_NOTHING + SUBSCRIBES + UPDATED + ASKS + UPDATED))

    def test_one_that_subscribed_before_or_after_the_request_did_not(self):
        self.assertFalse(kafka_python.missed_subscription(SUBSCRIBES + ASKS + UPDATED))
        self.assertFalse(kafka_python.missed_subscription(MADE_WITH + ASKS + UPDATED))
        self.assertFalse(kafka_python.missed_subscription(ASKS_NOTHING + UPDATED + SUBSCRIBES))

    def test_another_client_s_answer_says_nothing(self):
        other = UPDATED.replace("kafka-io-1", "kafka-io-2")
        self.assertFalse(kafka_python.missed_subscription(ASKS_NOTHING + SUBSCRIBES + other))


DISABLES = "17:02:02.1 DEBUG 14:kafka-io-1 kafka.coordinator Disabling heartbeat during join-group\n"
SYNCED = "17:02:02.1 DEBUG 14:kafka-io-1 kafka.coordinator Received SyncGroup response: R(version=5, error_code=0, x=1)\n"
ENABLES = "17:02:02.1 DEBUG 14:kafka-io-1 kafka.coordinator.heartbeat Enabling heartbeat\n"


class StoppedHeartbeats(unittest.TestCase):
    def test_a_member_with_its_assignment_and_no_heartbeats_stopped_them(self):
        self.assertTrue(kafka_python.stopped_heartbeats(DISABLES + SYNCED))
        self.assertTrue(kafka_python.stopped_heartbeats(DISABLES + SYNCED + ENABLES + DISABLES + SYNCED))

    def test_one_that_enabled_them_did_not(self):
        self.assertFalse(kafka_python.stopped_heartbeats(DISABLES + SYNCED + ENABLES))

    def test_one_without_an_answer_or_with_an_error_waits_for_the_broker(self):
        self.assertFalse(kafka_python.stopped_heartbeats(DISABLES))
        self.assertFalse(kafka_python.stopped_heartbeats(DISABLES + SYNCED + ENABLES + DISABLES))
        self.assertFalse(kafka_python.stopped_heartbeats(DISABLES + SYNCED.replace("error_code=0", "error_code=25")))

    def test_another_client_s_heartbeats_say_nothing(self):
        other = ENABLES.replace("kafka-io-1", "kafka-io-2")
        self.assertTrue(kafka_python.stopped_heartbeats(DISABLES + SYNCED + other))


class LostAClass(unittest.TestCase):
    def test_only_where_a_response_was_to_be_read(self):
        error = "ReferenceError: weakly-referenced object no longer exists\n"
        place = '  File "kafka/protocol/api_header.py", line 47, in get_response_class\n'
        self.assertTrue(kafka_python.lost_a_class(place + error))
        self.assertFalse(kafka_python.lost_a_class(error))
        self.assertFalse(kafka_python.lost_a_class(place))


RUST_PASSED = """\
running 1 test
test test_plain ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 22 filtered out; finished in 0.01s
"""
RUST_FAILED = """\
thread 'test_plain' (77) panicked at tests/client.rs:20:5:
no broker
test test_plain ... FAILED

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 22 filtered out; finished in 0.01s
"""


class JudgingRust(unittest.TestCase):
    def test_one_passed_test_passes(self):
        self.assertEqual(rust.judge(RUST_PASSED, 0), ("pass", ""))

    def test_one_that_returned_at_once_shows_nothing(self):
        said = RUST_PASSED.replace("test test_plain ... ok", "Skipping sasl test.\ntest test_plain ... ok")
        self.assertEqual(rust.judge(said, 0), ("skip", "Skipping sasl test."))

    def test_no_test_fails_although_the_program_passed(self):
        self.assertEqual(rust.judge(RUST_PASSED.replace("1 passed", "0 passed"), 0)[0], "fail")

    def test_a_failure_gives_its_panic(self):
        self.assertEqual(rust.judge(RUST_FAILED, 101), ("fail", "no broker"))

    def test_a_passing_line_does_not_excuse_the_exit_status(self):
        self.assertEqual(rust.judge(RUST_PASSED, 1), ("fail", "exit status 1"))


class Tables(unittest.TestCase):
    def test_results_replace_older_ones_of_the_same_test_and_shards_alone(self):
        expected = {"0001": results.Expected("pass", "pass", 2.0, "ci", (), ""),
                    "0098": results.Expected("later", "skip", 1.0, "full", (), "transactions")}
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "results.md")
            for shards, outcome in ((1, results.Outcome("fail", 9.0, 0, 0, "why")),
                                    (2, results.Outcome("pass", 3.0, 4, 2, "")),
                                    (1, results.Outcome("pass", 1.0, 4, 0, ""))):
                results.record(path, "title", expected, shards, {"0001": outcome})
            rows = [[cell.strip() for cell in line.split("|")[1:-1]]
                    for line in path.read_text().splitlines() if line.startswith("| 0")]
        self.assertEqual([cell for cell in rows[0] if "20" not in cell],
                         ["0001", "pass 2.0", "pass 1.0", "pass 3.0 (2)", ""])
        self.assertEqual(rows[1], ["0098", "skip 1.0", "-", "", "-", "", "transactions"])

    def test_every_line_of_the_lists_is_understood(self):
        for path in pathlib.Path(__file__).parent.glob("expected/*.txt"):
            with self.subTest(path.name):
                expected = results.read_expected(path)
                self.assertTrue(expected)
                self.assertTrue(all(want.result in ("pass", "skip", "fail", "later") for want in expected.values()))
                self.assertTrue(all(want.group in ("ci", "full") for want in expected.values()))


if __name__ == "__main__":
    unittest.main()
