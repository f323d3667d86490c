//! What the broker is started with: command line over `--set` over file over defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use penstock_core::config::memory::MemoryPlan;
use penstock_core::config::properties::{parse_assignment, parse_properties};
use penstock_core::config::{BrokerConfig, Listener, Overrides, StaticConfig};

use super::{Refusal, refusal};
use crate::cli::ServeArgs;
use crate::runtime::{cpus, memory};

/// Data directory when nothing names one, below the current directory.
const DEFAULT_DATA_DIR: &str = "penstock-data";
/// Most shards, as the command line and the config have it.
const SHARDS_MAX: usize = 256;

/// Everything that is fixed at start.
pub(super) struct Options {
    pub(super) config: BrokerConfig,
    pub(super) data_dir: PathBuf,
    /// HOST:PORT of the Kafka listener.
    pub(super) listen: String,
    /// HOST:PORT of the admin listener.
    pub(super) admin: String,
    pub(super) shards: usize,
    /// What each shard may keep in memory.
    pub(super) memory: MemoryPlan,
}

impl Options {
    pub(super) fn resolve(args: &ServeArgs) -> Result<Options, Refusal> {
        let mut values = Overrides::new();
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Refusal(format!(
                    "cannot read {}: {error}; give a readable file with --config",
                    path.display()
                ))
            })?;
            let parsed = parse_properties(&text);
            values = parsed.map_err(|error| Refusal(format!("{}: {error}", path.display())))?;
        }
        for assignment in &args.set {
            let (key, value) = parse_assignment(assignment).map_err(refusal)?;
            values.insert(key, value);
        }
        take_flags(args, &mut values);
        let statics = StaticConfig::new(values).map_err(refusal)?;
        let config = BrokerConfig::from_static(statics).map_err(refusal)?;
        let listen = match &args.listen {
            Some(listen) => listen.clone(),
            None => address(&config.listeners)?,
        };
        let data_dir = args.data_dir.clone().or_else(|| config.log_dir.as_ref().map(PathBuf::from));
        let shards = args.shards.map(usize::from).or(config.limits.shards);
        let shards = shards.unwrap_or_else(|| cpus::usable().len()).clamp(1, SHARDS_MAX);
        let memory = MemoryPlan::new(&config.limits, memory::available(), shards).map_err(refusal)?;
        Ok(Options {
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
            listen,
            admin: args.admin.clone(),
            shards,
            memory,
            config,
        })
    }

    /// Host and port that clients are told: `advertised.listeners`, else the address bound, or this host's name where
    /// that is every address.
    pub(super) fn advertised(&self, bound: SocketAddr) -> (String, u16) {
        if let Some(listener) = self.config.advertised_listeners.first() {
            return (listener.host.clone(), listener.port);
        }
        let name = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = match bound.ip().is_unspecified() {
            true => name().map_or_else(|| bound.ip().to_string(), |name| name.trim().to_owned()),
            false => bound.ip().to_string(),
        };
        (host, bound.port())
    }
}

/// What a flag says is a config as well, so that DescribeConfigs tells what is in force. Flags that cannot be written as
/// a config (an address to be refused, a path with a comma, a listener of another name) stay flags.
fn take_flags(args: &ServeArgs, values: &mut Overrides) {
    let has_port =
        |listen: &&String| listen.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let named_plaintext = !values.contains_key("listener.security.protocol.map");
    if let Some(listen) = args.listen.as_ref().filter(has_port).filter(|_| named_plaintext) {
        values.insert("listeners".to_owned(), format!("PLAINTEXT://{listen}"));
    }
    if let Some(dir) = args.data_dir.as_ref().and_then(|dir| dir.to_str()).filter(|dir| !dir.contains(',')) {
        values.insert("log.dirs".to_owned(), dir.to_owned());
    }
    if let Some(mib) = args.memory {
        values.insert("penstock.memory.bytes".to_owned(), mib.saturating_mul(1 << 20).to_string());
    }
    if let Some(shards) = args.shards {
        values.insert("penstock.shards".to_owned(), shards.to_string());
    }
}

/// The only listener, as HOST:PORT.
fn address(listeners: &[Listener]) -> Result<String, Refusal> {
    let [listener] = listeners else {
        let count = listeners.len();
        return Err(Refusal(format!(
            "listeners names {count} addresses, and this version serves one; leave one, or use --listen HOST:PORT"
        )));
    };
    let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
    Ok(if host.contains(':') {
        format!("[{host}]:{}", listener.port)
    } else {
        format!("{host}:{}", listener.port)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_as_configs() {
        let data_dir = Some(PathBuf::from("/data"));
        let args = ServeArgs { listen: Some("[::1]:0".to_owned()), data_dir, shards: Some(3), ..args() };
        let config = Options::resolve(&args).unwrap().config;
        assert_eq!((config.listeners[0].host.as_str(), config.listeners[0].port), ("::1", 0));
        assert_eq!((config.log_dir.as_deref(), config.limits.shards), (Some("/data"), Some(3)));
    }

    fn args() -> ServeArgs {
        let (config, data_dir, listen, shards, memory) = (None, None, None, None, None);
        let admin = "127.0.0.1:0".to_owned();
        ServeArgs { config, data_dir, listen, admin, shards, memory, set: Vec::new() }
    }

    #[test]
    fn the_command_line_wins_over_set_over_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listeners=PLAINTEXT://10.0.0.1:1\nlog.dirs=/from/file\nnode.id=7\n")
            .unwrap();
        let mut args = args();
        args.config = Some(file.path().to_owned());
        let options = Options::resolve(&args).unwrap();
        assert_eq!((options.listen.as_str(), options.config.node_id), ("10.0.0.1:1", 7));
        assert_eq!(options.data_dir, PathBuf::from("/from/file"));
        args.set = vec!["listeners=PLAINTEXT://[::1]:2".to_owned(), "penstock.shards=3".to_owned()];
        let options = Options::resolve(&args).unwrap();
        assert_eq!((options.listen.as_str(), options.shards), ("[::1]:2", 3));
        args.listen = Some("localhost:3".to_owned());
        args.shards = Some(5);
        args.data_dir = Some(PathBuf::from("/from/flag"));
        let options = Options::resolve(&args).unwrap();
        assert_eq!((options.listen.as_str(), options.shards), ("localhost:3", 5));
        assert_eq!(options.data_dir, PathBuf::from("/from/flag"));
    }

    #[test]
    fn refusals_name_key_and_value() {
        let mut args = args();
        args.set = vec!["no.such.key=1".to_owned()];
        assert!(Options::resolve(&args).err().unwrap().0.contains("no.such.key"));
        args.set = vec!["max.connections=-5".to_owned()];
        let refused = Options::resolve(&args).err().unwrap().0;
        assert!(refused.contains("max.connections") && refused.contains("-5"), "{refused}");
    }
}
