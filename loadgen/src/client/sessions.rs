//! Work spread over the leaders of its partitions.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::{ClientError, Cluster, Topic};

/// What one leader's session works on.
#[derive(Debug, Clone)]
pub struct Session {
    /// `host:port` of the leader.
    pub address: String,
    /// The topic, as metadata showed it when the session began.
    pub topic: Rc<Topic>,
    /// The partitions of this session that this broker leads.
    pub partitions: Vec<i32>,
}

/// Looks up who leads `partitions` and runs a session with each of these brokers, until all have ended. The first that
/// fails ends the others, for leadership may have moved from one to another: the caller begins anew.
///
/// Must be called within a `LocalSet`.
pub async fn by_leader<F, Fut>(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    mut run: F,
) -> Result<(), ClientError>
where
    F: FnMut(Session) -> Fut,
    Fut: Future<Output = Result<(), ClientError>> + 'static,
{
    let topic = Rc::new(cluster.topic(topic).await?);
    let mut sessions = JoinSet::new();
    for (address, partitions) in topic.by_leader(partitions)? {
        sessions.spawn_local(run(Session { address, topic: Rc::clone(&topic), partitions }));
    }
    while let Some(ended) = sessions.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(())
}
