//! What this process uses and what it may use: `/proc` and control groups, versions 1 and 2.
//!
//! `process` and `cgroup` only parse text; `reader` does the file access; `usage` turns two
//! samples into percentages.

mod cgroup;
mod process;
mod reader;
mod usage;

pub(crate) use reader::{Reader, Sample};
pub(crate) use usage::CpuMeter;
