//! What the handlers that change metadata have in common.

/// Submits a command and gives the answer of this name, or why there is none: then nothing was decided, and the handler
/// refuses everything that its request names.
macro_rules! submit {
    ($context:expr, $name:ident, $command:expr) => {
        match $context.shard.metadata($command).await {
            Ok(penstock_core::metadata::Answer::$name(response)) => Ok(response),
            Ok(_) => unreachable!("an answer has the name of its command"),
            Err(error) => Err(penstock_core::metadata::ApiError::from(error)),
        }
    };
}
pub(super) use submit;
