//! What the instruction gate (`benches/instructions`) judges by; the program itself is `main.rs`.

pub mod instructions;
