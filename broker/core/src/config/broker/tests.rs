#![allow(clippy::unwrap_used)]

use super::*;

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn broker(pairs: &[(&str, &str)]) -> Result<BrokerConfig, ConfigError> {
    BrokerConfig::from_static(StaticConfig::new(overrides(pairs))?)
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    broker(pairs).unwrap_err().to_string()
}

#[test]
fn nothing_given_serves_loopback() {
    let config = broker(&[]).unwrap();
    let listener = Listener { name: "PLAINTEXT".to_owned(), host: "127.0.0.1".to_owned(), port: 9092 };
    assert_eq!(config.listeners, [listener]);
    assert!(config.advertised_listeners.is_empty());
    assert_eq!((config.node_id, config.log_dir, config.num_partitions), (1, None, 1));
    assert_eq!(config.socket_request_max_bytes, 104_857_600);
    assert_eq!(config.limits.shards, None);
}

/// The file that Apache Kafka ships for one node must start this broker as it is.
#[test]
fn kafkas_sample_file_is_accepted() {
    let text = "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092\ncontroller.listener.names=CONTROLLER\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
        num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
        socket.request.max.bytes=104857600\nlog.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\n\
        num.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
        share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
        transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nlog.retention.hours=168\n\
        log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
    let settings = crate::config::properties::parse_properties(text).unwrap();
    let config = BrokerConfig::from_static(StaticConfig::new(settings).unwrap()).unwrap();
    assert_eq!(config.node_id, 7);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("", 9092));
    assert_eq!(config.log_dir.as_deref(), Some("/tmp/kraft-combined-logs"));
}

#[test]
fn refusals_name_key_value_and_what_is_allowed() {
    assert_eq!(refusal(&[("num.partition", "3")]), "Unknown broker config name: num.partition");
    assert_eq!(
        refusal(&[("num.partitions", "0")]),
        "Invalid value 0 for configuration num.partitions: Value must be at least 1"
    );
    assert!(refusal(&[("log.dirs", "/a,/b")]).contains("exactly one directory"));
    assert!(
        refusal(&[("listeners", "SSL://:9092")])
            .contains("only listeners of the security protocol PLAINTEXT")
    );
    assert!(refusal(&[("listeners", "FOO://:9092")]).contains("listener.security.protocol.map"));
    assert!(refusal(&[("listeners", "PLAINTEXT:9092")]).contains("must be NAME://host:port"));
    assert!(refusal(&[("listeners", "")]).contains("at least one listener"));
    assert!(refusal(&[("node.id", "1"), ("broker.id", "2")]).contains("must be the same"));
    assert!(
        refusal(&[("ssl.key.password", "secret"), ("ssl.client.auth", "required")])
            .contains("ssl.client.auth")
    );
    assert!(refusal(&[("max.connections.per.ip.overrides", "a:x")]).contains("host:count"));
}

#[test]
fn addresses_of_both_families() {
    let config = broker(&[("listeners", "plaintext://[::1]:0")]).unwrap();
    assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("::1", 0));
    let config = broker(&[("max.connections.per.ip.overrides", "10.0.0.1:5, ::1:7")]).unwrap();
    assert_eq!(config.connections_per_ip_overrides.get("::1"), Some(&7));
}

#[test]
fn dynamic_values_win_by_source() {
    let config = broker(&[("log.retention.ms", "1000")]).unwrap();
    let retention = |config: &BrokerConfig| config.topic(&Overrides::new()).retention_ms;
    assert_eq!(retention(&config), Some(1000));
    let config = config.with_dynamic(overrides(&[("log.retention.ms", "2000")]), Overrides::new()).unwrap();
    assert_eq!(retention(&config), Some(2000));
    let node = overrides(&[("log.retention.ms", "3000")]);
    let config = config.with_dynamic(config.cluster.clone(), node).unwrap();
    assert_eq!(retention(&config), Some(3000));
}

#[test]
fn only_dynamic_keys_change_at_run_time() {
    let refuse =
        |pairs, cluster| validate_dynamic_configs(&overrides(pairs), cluster).unwrap_err().to_string();
    assert_eq!(refuse(&[("node.id", "3")], false), "Cannot update these configs dynamically: [node.id]");
    assert_eq!(
        refuse(&[("ssl.keystore.type", "PEM")], true),
        "Cannot update these configs at default cluster level, broker id must be specified: [ssl.keystore.type]"
    );
    assert!(validate_dynamic_configs(&overrides(&[("log.retention.ms", "5")]), true).is_ok());
}
