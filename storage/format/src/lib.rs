//! Kafka record batch format v2: pure bytes.
