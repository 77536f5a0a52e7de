//! One direction of the protocol, cut into messages however its bytes arrive.

/// The most that is kept of a body: the longest parameter of interest, its value and both zeros
/// take 34 bytes.
pub(super) const KEPT: usize = 40;

/// What [`Frames::push`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A message of this type begins: its type and length are there.
    Head(u8),
    /// A message is there whole. The first [`KEPT`] bytes of its body come along if its type was
    /// asked for, else none.
    Whole(u8, &'a [u8]),
}

/// Cuts a stream of bytes into messages. Holds no more than one head and the begin of one body,
/// whatever lengths the stream announces.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// Types whose bodies are wanted.
    wanted: &'static [u8],
    /// Type and length, as far as they came.
    head: [u8; 5],
    filled: usize,
    /// Bytes of the body still to come, once the head is there.
    rest: usize,
    kept: [u8; KEPT],
    kept_len: usize,
    /// A length that cannot be: nothing after it can be understood.
    broken: bool,
}

impl Frames {
    /// A stream of messages that all have a type.
    pub(super) fn typed(wanted: &'static [u8]) -> Self {
        let (head, kept) = ([0; 5], [0; KEPT]);
        Self { wanted, head, filled: 0, rest: 0, kept, kept_len: 0, broken: false }
    }

    /// A stream whose first message has no type, as a client begins. It gets the type zero.
    pub(super) fn after_startup() -> Self {
        Self { filled: 1, ..Self::typed(&[]) }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Where in the bytes to come a message begins with one of these.
    pub(super) fn find<'a>(&self, bytes: &[u8], begins: &[&'a [u8]]) -> Option<(usize, &'a [u8])> {
        let mut at = self.next_message(bytes)?;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(begin) = begins.iter().find(|begin| rest.starts_with(begin)) {
                return Some((at, begin));
            }
            at = at.checked_add(1 + length(rest.get(1..)?)?)?;
        }
        None
    }

    /// Where in the bytes to come the next message begins, which may be behind them.
    fn next_message(&self, bytes: &[u8]) -> Option<usize> {
        match self.filled {
            0 => Some(0),
            filled if filled < self.head.len() => {
                let missing = self.head.len() - filled;
                let mut head = self.head;
                head[filled..].copy_from_slice(bytes.get(..missing)?);
                Some(missing + length(&head[1..])? - 4)
            }
            _ => Some(self.rest),
        }
    }

    /// Reads on.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() && !self.broken {
            if self.filled < self.head.len() {
                bytes = self.read_head(bytes, &mut each);
            } else {
                bytes = self.read_body(bytes, &mut each);
            }
        }
    }

    fn read_head<'a>(&mut self, bytes: &'a [u8], each: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let missing = (self.head.len() - self.filled).min(bytes.len());
        let (now, later) = bytes.split_at(missing);
        self.head[self.filled..self.filled + missing].copy_from_slice(now);
        self.filled += missing;
        if self.filled < self.head.len() {
            return later;
        }
        let Some(length) = length(&self.head[1..]) else {
            self.broken = true;
            return later;
        };
        self.rest = length - 4;
        each(Piece::Head(self.head[0]));
        if self.rest == 0 {
            self.finish(&[], each);
        }
        later
    }

    fn read_body<'a>(&mut self, bytes: &'a [u8], each: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let (now, later) = bytes.split_at(self.rest.min(bytes.len()));
        self.rest -= now.len();
        let wanted = self.wanted.contains(&self.head[0]);
        if wanted && self.kept_len == 0 && self.rest == 0 {
            // The usual case: a body that came in one piece is not copied.
            self.finish(&now[..now.len().min(KEPT)], each);
            return later;
        }
        if wanted {
            let room = (KEPT - self.kept_len).min(now.len());
            self.kept[self.kept_len..self.kept_len + room].copy_from_slice(&now[..room]);
            self.kept_len += room;
        }
        if self.rest == 0 {
            let kept = self.kept;
            self.finish(&kept[..self.kept_len], each);
        }
        later
    }

    fn finish(&mut self, body: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        each(Piece::Whole(self.head[0], body));
        (self.filled, self.kept_len) = (0, 0);
    }
}

/// The length that a message announces; it counts itself. It is signed on the wire.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(*bytes.first_chunk()?);
    usize::try_from(length).ok().filter(|length| *length >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(frames: &mut Frames, bytes: &[u8]) -> Vec<(u8, Option<Vec<u8>>)> {
        let mut seen = Vec::new();
        frames.push(bytes, |piece| {
            seen.push(match piece {
                Piece::Head(kind) => (kind, None),
                Piece::Whole(kind, body) => (kind, Some(body.to_vec())),
            });
        });
        seen
    }

    #[test]
    fn messages_are_told_at_their_head_and_at_their_end() {
        let mut frames = Frames::typed(b"Z");
        assert_eq!(pieces(&mut frames, b"Z\0\0\0"), []);
        assert_eq!(pieces(&mut frames, b"\x05"), [(b'Z', None)]);
        assert_eq!(
            pieces(&mut frames, b"I1\0\0\0\x04"),
            [(b'Z', Some(b"I".to_vec())), (b'1', None), (b'1', Some(Vec::new())),]
        );
        assert_eq!(pieces(&mut frames, b"D\0\0\0\x06ab"), [(b'D', None), (b'D', Some(Vec::new()))]);
    }

    #[test]
    fn the_first_message_of_a_client_has_no_type() {
        let mut frames = Frames::after_startup();
        let seen = pieces(&mut frames, b"\0\0\0\x08\0\x03\0\0S\0\0\0\x04");
        assert_eq!(seen.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0, 0, b'S', b'S']);
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_reading() {
        for length in [-1, i32::MIN, 0, 3] {
            let mut frames = Frames::typed(b"");
            let mut bytes = vec![b'D'];
            bytes.extend(length.to_be_bytes());
            bytes.extend(b"Z\0\0\0\x05I");
            assert_eq!(pieces(&mut frames, &bytes), []);
            assert!(frames.is_broken());
        }
    }

    #[test]
    fn of_a_long_body_only_the_begin_is_kept() {
        let mut frames = Frames::typed(b"S");
        assert_eq!(pieces(&mut frames, b"S\x7f\xff\xff\xff").len(), 1);
        for _ in 0..1_000 {
            assert_eq!(pieces(&mut frames, &[b'x'; 1_000]), []);
        }
        assert_eq!(frames.kept_len, KEPT);
    }
}
