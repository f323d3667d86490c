//! Sans-IO state machines of the broker.
