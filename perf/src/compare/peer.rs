//! Who is compared, and how each is started on the same core and disk.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::kafka::{self, KafkaSpec};
use crate::broker::{Broker, BrokerSpec};

/// One of the compared brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerKind {
    /// Penstock: every acknowledgement is on stable storage
    Penstock,
    /// Apache Kafka as it comes: acknowledges from memory, the kernel writes when it likes
    Kafka,
    /// Apache Kafka that flushes each append before it acknowledges
    KafkaFlush,
}

impl PeerKind {
    /// In the order of tables.
    pub(crate) fn all() -> Vec<PeerKind> {
        vec![PeerKind::Penstock, PeerKind::Kafka, PeerKind::KafkaFlush]
    }

    /// Its name in files and options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PeerKind::Penstock => "penstock",
            PeerKind::Kafka => "kafka",
            PeerKind::KafkaFlush => "kafka-flush",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            PeerKind::Penstock => "Penstock",
            PeerKind::Kafka => "Kafka",
            PeerKind::KafkaFlush => "Kafka, `flush.messages=1`",
        }
    }
}

/// How to start each peer. One runs at a time.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    /// Penstock.
    pub(crate) penstock: BrokerSpec,
    /// Apache Kafka; none where no peer is it.
    pub(crate) kafka: Option<KafkaSpec>,
}

impl Peers {
    /// Starts `kind` with nothing in it.
    pub(crate) fn start(&self, kind: PeerKind) -> io::Result<Broker> {
        match kind {
            PeerKind::Penstock => Broker::start(&self.penstock),
            PeerKind::Kafka | PeerKind::KafkaFlush => kafka::start(self.kafka()?, kind),
        }
    }

    /// Starts `kind` on what it left behind.
    pub(crate) fn start_again(&self, kind: PeerKind) -> io::Result<Broker> {
        match kind {
            PeerKind::Penstock => Broker::start_again(&self.penstock),
            PeerKind::Kafka | PeerKind::KafkaFlush => kafka::start_again(self.kafka()?),
        }
    }

    /// Where `kind` keeps its data.
    pub(crate) fn data_dir(&self, kind: PeerKind) -> io::Result<PathBuf> {
        match kind {
            PeerKind::Penstock => Ok(self.penstock.data_dir.clone()),
            PeerKind::Kafka | PeerKind::KafkaFlush => Ok(self.kafka()?.data_dir.clone()),
        }
    }

    fn kafka(&self) -> io::Result<&KafkaSpec> {
        self.kafka.as_ref().ok_or_else(|| io::Error::other("Apache Kafka was not prepared"))
    }
}
