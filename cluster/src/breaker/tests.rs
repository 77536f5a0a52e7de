//! The pure parts against models that keep everything in lists. Apart from the files they are about,
//! which the loom tests read as well.

mod machine;
mod watch;
mod window;
