//! What both directions of one connection say together: who owes whom an answer.
//!
//! The server answers each `Sync`, `Query` and `FunctionCall` by one `ReadyForQuery`, with one
//! exception: while it reads the data of a COPY it drops every `Sync`. The driver sends one right
//! behind the `Execute` of a COPY, and a second behind the data, and expects one answer. Which of
//! them are dropped depends on whether the COPY began (`CopyInResponse`) and on who came first, the
//! end of the data or an error. Where that cannot be told from the bytes, the session is called
//! doubtful until the next answer tells; where the driver counts otherwise than the server, it is
//! called lost, since answers would reach the wrong caller from there on.

use super::frames::{Frames, Piece};
use crate::postgres::wire::{State, TransactionStatus};

/// How the driver ends a COPY: `CopyFail` without a word, or `CopyDone`, and a `Sync`.
const ENDS: [&[u8]; 2] = [b"f\0\0\0\x05\0S\0\0\0\x04", b"c\0\0\0\x04S\0\0\0\x04"];

/// Parses both directions. Pure: no clock, no I/O, no allocation, a fixed size.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    client: Frames,
    server: Frames,
    counts: Counts,
}

impl Session {
    /// Before the first byte of a connection, behind whatever TLS there is.
    pub(crate) fn new() -> Self {
        Self {
            client: Frames::after_startup(),
            server: Frames::typed(b"SZ"),
            counts: Counts::new(),
        }
    }

    /// How many of the bytes that the client is about to send must not reach the server.
    ///
    /// The driver ends a COPY also when the server has refused it. It expects one answer to all of
    /// it, which it has got by then, and the server would answer the second `Sync` too: from there
    /// on each answer would go to the next caller.
    pub(crate) fn orphaned(&self, bytes: &[u8]) -> usize {
        match ENDS.iter().find(|end| bytes.starts_with(end)) {
            Some(end) if self.client.is_between() && self.counts.has_refused_copy() => end.len(),
            _ => 0,
        }
    }

    /// The client sent this.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let counts = &mut self.counts;
        self.client.push(bytes, |piece| {
            // At the head already: a request that is half sent counts.
            if let Piece::Head(kind) = piece {
                counts.client(kind);
            }
        });
        counts.lost |= self.client.is_broken();
    }

    /// The server sent this.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        let counts = &mut self.counts;
        self.server.push(bytes, |piece| {
            if let Piece::Whole(kind, body) = piece {
                counts.server(kind, body);
            }
        });
        counts.lost |= self.server.is_broken();
    }

    /// What is known now.
    pub(crate) fn state(&self) -> State {
        let counts = &self.counts;
        State {
            outstanding: u32::try_from(counts.outstanding()).unwrap_or(u32::MAX),
            status: counts.status,
            copying: counts.copy != Copying::None || counts.early.is_some(),
            stuck: counts.copy == Copying::Open { simple: true, ended: false },
            doubtful: counts.doubtful,
            lost: counts.lost,
            closed: false,
            in_hot_standby: counts.in_hot_standby,
            default_read_only: counts.default_read_only,
        }
    }

    /// `ReadyForQuery` messages so far, the one that ends the handshake included.
    pub(crate) fn answered(&self) -> u64 {
        self.counts.answered
    }
}

/// How far a COPY from the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copying {
    None,
    /// The server reads data. `simple`: the COPY came in a `Query`. `ended`: the client sent the
    /// end of the data, or that there will be none.
    Open {
        simple: bool,
        ended: bool,
    },
    /// The server refused the data and waits for the next `Sync`.
    Failed {
        ended: bool,
    },
}

/// A COPY that its client ended before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Early {
    simple: bool,
    /// Requests sent since.
    since: u64,
}

#[derive(Debug, Clone)]
struct Counts {
    /// Requests sent; the startup message is the first.
    sent: u64,
    answered: u64,
    /// Every `Sync` that the server dropped, as it was in a COPY.
    dropped: u64,
    /// The last message that makes the server execute something was a `Query`.
    simple: bool,
    copy: Copying,
    /// The end of the data of a COPY was sent before the server said whether it begins.
    early: Option<Early>,
    /// A `Sync` counted as dropped may be answered yet: the COPY failed, and perhaps before the
    /// server read on.
    doubtful: bool,
    /// A `Sync` of the running COPY was counted as dropped.
    guessed: bool,
    /// The server said something about a request since its last `ReadyForQuery`.
    content: bool,
    /// What it said was an error.
    refused: bool,
    lost: bool,
    status: TransactionStatus,
    in_hot_standby: Option<bool>,
    default_read_only: Option<bool>,
}

impl Counts {
    fn new() -> Self {
        Self {
            sent: 0,
            answered: 0,
            dropped: 0,
            simple: false,
            copy: Copying::None,
            early: None,
            doubtful: false,
            guessed: false,
            content: false,
            refused: false,
            lost: false,
            status: TransactionStatus::Idle,
            in_hot_standby: None,
            default_read_only: None,
        }
    }

    /// Answers that the server owes.
    fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.dropped).saturating_sub(self.answered)
    }

    /// For a client that gives up a COPY: no answer to it is to come, except the one that follows
    /// the error. Nothing else is under way, since the driver sends nothing else before.
    fn has_refused_copy(&self) -> bool {
        let answered = match self.outstanding() {
            0 => true,
            1 => self.refused,
            _ => false,
        };
        answered && self.copy == Copying::None && self.early.is_none() && !self.lost
    }

    fn client(&mut self, kind: u8) {
        match kind {
            // Zero stands for the startup message, which is answered by a first `ReadyForQuery`.
            0 => self.sent += 1,
            b'Q' | b'F' => {
                self.simple = true;
                self.request();
            }
            b'E' => self.simple = false,
            b'S' => self.sync(),
            b'c' | b'f' => self.end_of_data(),
            _ => {}
        }
    }

    fn request(&mut self) {
        self.sent += 1;
        if let Some(early) = &mut self.early {
            early.since += 1;
        }
    }

    fn sync(&mut self) {
        self.request();
        if let Copying::Open { ended: false, .. } = self.copy {
            self.dropped += 1;
            self.guessed = true;
        }
    }

    fn end_of_data(&mut self) {
        match &mut self.copy {
            Copying::Open { ended: ended @ false, .. }
            | Copying::Failed { ended: ended @ false } => {
                *ended = true;
            }
            // Of a COPY that is sent and that the server has not spoken of. Two such at a time
            // cannot be told apart, and without any the client sends what has no sense.
            _ => {
                self.lost |= self.outstanding() == 0 || self.early.is_some();
                self.early = Some(Early { simple: self.simple, since: 0 });
            }
        }
    }

    fn server(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'S' => return self.parameter(body),
            b'N' | b'A' => return,
            b'Z' => return self.ready(body),
            b'G' => self.copy_begins(),
            b'C' if self.copy != Copying::None => {
                (self.copy, self.guessed) = (Copying::None, false);
            }
            b'E' => {
                self.refused = true;
                if let Copying::Open { ended, .. } = self.copy {
                    self.copy = Copying::Failed { ended };
                }
            }
            // CopyBothResponse: replication, where nothing here holds.
            b'W' => self.lost = true,
            _ => {}
        }
        self.content = true;
    }

    fn copy_begins(&mut self) {
        // All requests before that of the COPY are answered. What was sent since, up to the end
        // of the data, the server reads as part of the COPY.
        let early = self.early.take();
        let simple = early.map_or(self.simple, |early| early.simple);
        let behind = early.map_or(0, |early| early.since) + u64::from(simple);
        let dropped = self.outstanding().saturating_sub(behind);
        self.dropped += dropped;
        self.guessed = dropped > 0;
        self.copy = Copying::Open { simple, ended: early.is_some() };
    }

    fn ready(&mut self, body: &[u8]) {
        if self.outstanding() == 0
            && self.copy == (Copying::Failed { ended: false })
            && self.guessed
        {
            // The COPY failed before the server read on, so it did not drop that `Sync`.
            self.dropped -= 1;
            self.guessed = false;
        }
        // Unasked, or in the middle of a COPY, or one more than expected after a COPY failed.
        self.lost |= self.outstanding() == 0;
        self.lost |= matches!(self.copy, Copying::Open { .. });
        self.lost |= self.doubtful && !self.content;
        self.answered += 1;
        self.doubtful = matches!(self.copy, Copying::Failed { .. }) && self.guessed;
        (self.copy, self.guessed) = (Copying::None, false);
        (self.content, self.refused) = (false, false);
        // The COPY failed before it began: both of its `Sync` are answered, one too many.
        self.lost |= self.early.is_some_and(|early| self.outstanding() <= early.since);
        match body {
            b"I" => self.status = TransactionStatus::Idle,
            b"T" => self.status = TransactionStatus::Active,
            b"E" => self.status = TransactionStatus::Failed,
            _ => self.lost = true,
        }
    }

    fn parameter(&mut self, body: &[u8]) {
        let mut parts = body.split(|byte| *byte == 0);
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return };
        let value = match value {
            b"on" => Some(true),
            b"off" => Some(false),
            _ => None,
        };
        match name {
            b"in_hot_standby" => self.in_hot_standby = value,
            b"default_transaction_read_only" => self.default_read_only = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
