//! Kafka wire messages, generated from schema facts, with bounded decoding.
