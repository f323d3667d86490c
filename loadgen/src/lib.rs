//! Load generator and verifier for any broker that speaks Kafka's protocol.
