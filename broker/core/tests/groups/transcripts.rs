//! Transcripts: what is asked, and what the coordinator does, step by step, to be read as a specification.
//!
//! A file holds steps: a command, a line `----`, and what came of it. Appends are flushed at once unless the file says
//! `hold`. `~01` stands for the hyphen and UUID that make a member id of the first request, and so on. With
//! UPDATE_TRANSCRIPTS set in the environment the files are rewritten instead of compared: read the difference then.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use penstock_core::coordinator::RequestId;
use penstock_core::group::{Caller, GroupCall, GroupRecord, GroupRequest};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use crate::command::Words;
use crate::log::{Host, PARTITION, config};
use crate::print;

/// What the UUIDs of this test begin with; the last two digits are the number of the request.
const ID_STEM: &str = "-00000000-0000-0000-0000-0000000000";

struct Session {
    host: Host,
    now_ms: i64,
    requests: u64,
    holds: bool,
    refusal: Option<ErrorCode>,
    seen: usize,
    out: String,
}

impl Session {
    fn new() -> Session {
        let host = Host::new(config(&[("group.initial.rebalance.delay.ms", "0")]), 0);
        Session { host, now_ms: 0, requests: 0, holds: false, refusal: None, seen: 0, out: String::new() }
    }

    fn run(&mut self, line: &str) -> String {
        let line = line.replace('~', ID_STEM);
        let words = Words::of(&line);
        match words.command.as_str() {
            "config" => {
                let changed: Vec<(&str, &str)> = words.named().collect();
                self.host = Host::new(config(&changed), self.now_ms);
            }
            "hold" => self.holds = true,
            "flush" => {
                self.holds = false;
                self.settle();
            }
            "refuse" => {
                self.refusal = ErrorCode::ALL.iter().copied().find(|code| code.name() == words.plain(0))
            }
            "advance" => self.advance(words.plain(0).parse().unwrap()),
            "crash" => {
                self.holds = false;
                self.host.crash(words.number("kept", 0) as usize, self.now_ms);
            }
            "load" => self.host.load(self.now_ms),
            "log" => self.print_log(),
            _ => self.ask(&words),
        }
        self.settle();
        std::mem::take(&mut self.out).replace(ID_STEM, "~")
    }

    fn ask(&mut self, words: &Words) {
        self.requests += 1;
        let mut id = [0; 16];
        id[15] = self.requests as u8;
        let request: GroupRequest = words.request();
        let caller = Caller {
            version: words.number("v", words.newest()) as i16,
            client_id: WireString::from(words.value("client").unwrap_or("c")),
            client_host: WireString::from("/127.0.0.1"),
            fresh_id: Uuid::from_bytes(id),
        };
        let call = GroupCall { caller, request };
        self.host.coordinator.handle(PARTITION, call, RequestId(self.requests), self.now_ms);
    }

    /// Goes from deadline to deadline, as a driver would.
    fn advance(&mut self, by_ms: i64) {
        let until_ms = self.now_ms + by_ms;
        while let Some(deadline_ms) = self.host.coordinator.poll_timeout().filter(|at_ms| *at_ms <= until_ms)
        {
            self.now_ms = deadline_ms.max(self.now_ms);
            self.host.coordinator.handle_timeout(self.now_ms);
            let seen = self.out.len();
            self.settle();
            if self.out.len() > seen {
                let at = format!("at {} ms:\n", self.now_ms);
                self.out.insert_str(seen, &at);
            }
        }
        self.now_ms = until_ms;
    }

    fn settle(&mut self) {
        loop {
            let refusal = &mut self.refusal;
            let mut refused = Vec::new();
            self.host.drain(self.now_ms, || {
                refused.extend(*refusal);
                refusal.take()
            });
            for code in refused {
                writeln!(self.out, "append refused: {}", code.name()).unwrap();
            }
            self.print_appends();
            for (RequestId(id), response) in std::mem::take(&mut self.host.replies) {
                writeln!(self.out, "reply {id}: {}", print::response(&response)).unwrap();
            }
            if self.holds || self.host.written.is_empty() {
                return;
            }
            self.seen = self.seen.saturating_sub(1);
            self.host.flush_one(self.now_ms);
        }
    }

    fn print_appends(&mut self) {
        for (_, records) in self.host.written.iter().skip(self.seen) {
            for record in records {
                let record = GroupRecord::decode(Some(&record.key), record.value.as_ref()).unwrap().unwrap();
                writeln!(self.out, "append {}", print::record(&record)).unwrap();
            }
        }
        self.seen = self.host.written.len();
    }

    fn print_log(&mut self) {
        for record in &self.host.durable {
            let record = GroupRecord::decode(Some(&record.key), record.value.as_ref()).unwrap().unwrap();
            writeln!(self.out, "{}", print::record(&record)).unwrap();
        }
    }
}

/// The text with what really happens in it.
fn replayed(text: &str) -> String {
    let mut session = Session::new();
    let mut out = String::new();
    for block in text.split("\n\n") {
        let block = block.trim_end();
        let (asked, _) = block.split_once("\n----").unwrap_or((block, ""));
        out.push_str(asked);
        let commands: Vec<&str> = asked.lines().filter(|line| !line.starts_with('#')).collect();
        let result: String = commands.iter().map(|command| session.run(command)).collect();
        if !commands.is_empty() {
            out.push_str("\n----\n");
            out.push_str(&result);
        }
        out.truncate(out.trim_end().len());
        out.push_str("\n\n");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[test]
fn transcripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/groups/transcripts");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        let now = replayed(&text);
        if update {
            std::fs::write(path, now).unwrap();
            continue;
        }
        let line = now.lines().zip(text.lines()).position(|(now, then)| now != then);
        let at = line.unwrap_or(now.lines().count().min(text.lines().count())) + 1;
        assert!(now == text, "{} differs from line {at} on; now it is:\n{now}", path.display());
    }
    assert_eq!(paths.len(), 9);
}
