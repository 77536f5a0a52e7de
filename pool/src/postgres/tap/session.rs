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
            server: Frames::typed(b"KSZ"),
            counts: Counts::new(),
        }
    }

    /// What to do with the bytes that the client is about to send: they pass as they are, but for
    /// the end of a COPY that nobody reads.
    ///
    /// The driver ends a COPY also when the server has refused it, or when its caller has given it
    /// up before the server spoke. It expects one answer to all of it. If the COPY is refused that
    /// is the one to the first `Sync`, and the server would answer the second too: from there on
    /// each answer would go to the next caller. So the end waits until it is known whether the COPY
    /// began, and is dropped if it did not.
    pub(crate) fn passage(&self, bytes: &[u8]) -> Passage {
        match self.client.find(bytes, &ENDS) {
            None => Passage::Write(bytes.len()),
            Some((at @ 1.., _)) => Passage::Write(at),
            Some((_, end)) => match self.counts.copy_at_end() {
                AtEnd::Runs => Passage::Write(end.len()),
                AtEnd::Refused => Passage::Drop(end.len()),
                AtEnd::Unknown => Passage::Hold,
            },
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
            copying: counts.copy != Copying::None,
            stuck: counts.copy == Copying::Open { simple: true, ended: false },
            doubtful: counts.doubtful,
            lost: counts.lost,
            closed: false,
            in_hot_standby: counts.in_hot_standby,
            default_read_only: counts.default_read_only,
        }
    }

    /// The process that serves this connection, once it has said so.
    pub(crate) fn backend(&self) -> Option<i32> {
        self.counts.backend
    }

    /// `ReadyForQuery` messages so far, the one that ends the handshake included.
    pub(crate) fn answered(&self) -> u64 {
        self.counts.answered
    }
}

/// See [`Session::passage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// So many may be sent.
    Write(usize),
    /// So many must be taken for sent.
    Drop(usize),
    /// None, until the server has sent more.
    Hold,
}

/// What has become of a COPY at whose end the client is.
enum AtEnd {
    Runs,
    Refused,
    Unknown,
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
    backend: Option<i32>,
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
            doubtful: false,
            guessed: false,
            content: false,
            refused: false,
            lost: false,
            backend: None,
            status: TransactionStatus::Idle,
            in_hot_standby: None,
            default_read_only: None,
        }
    }

    /// Answers that the server owes.
    fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.dropped).saturating_sub(self.answered)
    }

    /// Asked when the client ends a COPY. Nothing else is under way behind it, since the driver
    /// sends nothing else before.
    fn copy_at_end(&self) -> AtEnd {
        match (self.copy, self.outstanding()) {
            _ if self.lost => AtEnd::Runs,
            (Copying::Open { ended: false, .. } | Copying::Failed { ended: false }, _) => {
                AtEnd::Runs
            }
            (Copying::None, 0) => AtEnd::Refused,
            // Its answer follows the error at once.
            (Copying::None, 1) if self.refused => AtEnd::Refused,
            _ => AtEnd::Unknown,
        }
    }

    fn client(&mut self, kind: u8) {
        match kind {
            // Zero stands for the startup message, which is answered by a first `ReadyForQuery`.
            0 => self.sent += 1,
            b'Q' | b'F' => {
                self.simple = true;
                self.sent += 1;
            }
            b'E' => self.simple = false,
            b'S' => self.sync(),
            b'c' | b'f' => self.end_of_data(),
            _ => {}
        }
    }

    fn sync(&mut self) {
        self.sent += 1;
        if let Copying::Open { ended: false, .. } = self.copy {
            self.dropped += 1;
            self.guessed = true;
        }
    }

    fn end_of_data(&mut self) {
        match &mut self.copy {
            Copying::Open { ended, .. } | Copying::Failed { ended } if !*ended => *ended = true,
            // Of no COPY that is known.
            _ => self.lost = true,
        }
    }

    fn server(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'S' => return self.parameter(body),
            b'N' | b'A' => return,
            b'K' => {
                self.backend = body.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
                return;
            }
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
        // All requests before that of the COPY are answered. What was sent since, the server reads
        // as part of the COPY.
        let dropped = self.outstanding().saturating_sub(u64::from(self.simple));
        self.dropped += dropped;
        self.guessed = dropped > 0;
        self.copy = Copying::Open { simple: self.simple, ended: false };
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
