//! escala beside its rivals. One bench answers one question, and its first row is the bare service:
//!
//! - `cargo bench -p escala-benches --bench http`: what is left of bare axum's requests per second
//!   with our whole stack on a cached read, and with the usual alternatives?
//! - `cargo bench -p escala-benches --bench layers`: what does each layer and handle add to a call?
