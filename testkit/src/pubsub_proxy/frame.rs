//! Where a frame of RESP2 or RESP3 ends, and whether it is a message to a subscriber.

/// The length of the first frame, if it is complete.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Frames yet to be passed over: a frame of parts adds its parts.
    let mut left = 1_usize;
    while left > 0 {
        let line = bytes.get(at..)?;
        let end = line.windows(2).position(|pair| pair == b"\r\n")?;
        let (kind, count) = (line.first()?, number(line.get(1..end)?));
        at += end + 2;
        left -= 1;
        match (kind, count) {
            (b'$' | b'=' | b'!', Some(count)) => {
                at += count + 2;
                if bytes.len() < at {
                    return None;
                }
            }
            (b'*' | b'>' | b'~', Some(parts)) => left += parts,
            (b'%', Some(pairs)) => left += 2 * pairs,
            // Attributes come before the frame they belong to.
            (b'|', Some(pairs)) => left += 2 * pairs + 1,
            _ => {}
        }
    }
    Some(at)
}

/// Whether a frame is a message to a subscriber of a channel or pattern.
pub(super) fn is_message(frame: &[u8]) -> bool {
    let kinds = [
        "*3\r\n$7\r\nmessage\r\n",
        ">3\r\n$7\r\nmessage\r\n",
        "*4\r\n$8\r\npmessage\r\n",
        ">4\r\n$8\r\npmessage\r\n",
    ];
    kinds.iter().any(|kind| frame.starts_with(kind.as_bytes()))
}

/// A length; what is none (`-1`) has nothing after it.
fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_where_its_last_part_ends() {
        let frames: [&[u8]; 12] = [
            b"+OK\r\n",
            b":12\r\n",
            b"$5\r\nhello\r\n",
            b"$5\r\nhe\r\no\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
            b"%1\r\n+key\r\n*0\r\n",
            b"|1\r\n+ttl\r\n:1\r\n+OK\r\n",
            b"=6\r\ntxt:hi\r\n",
        ];
        for frame in frames {
            let text = String::from_utf8_lossy(frame);
            let longer = [frame, b"+next\r\n"].concat();
            assert_eq!(length(&longer), Some(frame.len()), "{text}");
            for cut in 0..frame.len() {
                assert_eq!(length(&frame[..cut]), None, "{text} cut at {cut}");
            }
        }
    }

    #[test]
    fn only_messages_are_messages() {
        assert!(is_message(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"));
        assert!(is_message(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"));
        assert!(!is_message(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"));
        assert!(!is_message(b"$7\r\nmessage\r\n"));
    }
}
