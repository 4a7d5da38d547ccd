//! Chat with GLM models in a terminal.
fn main() {}
