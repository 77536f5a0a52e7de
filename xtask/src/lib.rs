//! The rules of the house as pure functions, and what they need to read the workspace.
//!
//! [`tidy::check`] takes files and gives findings; it starts no process and opens no file, so
//! each rule is tested on a few lines of text. [`workspace`] is the only module here that reads
//! the disk. The commands themselves (`cargo xtask --help`) live in the binary.

pub mod manifest;
pub mod rust;
pub mod tidy;
pub mod workspace;
