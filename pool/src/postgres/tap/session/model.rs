//! The tap against a driver and a server that follow the protocol, whatever goes wrong between
//! them and in whatever order their messages pass each other.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::message;
use super::{Passage, Session};

/// What happens to a COPY at the server.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Works,
    /// Before it begins: there is no such table.
    Refused,
    /// Between its beginning and the first look at the data: a trigger.
    Triggered,
    /// At its first data.
    BadData,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Simple {
        fails: bool,
    },
    Extended {
        fails: bool,
    },
    /// `early`: given up before the server says anything. `done`: ended well by the client.
    Copy {
        fate: Fate,
        early: bool,
        data: usize,
        done: bool,
    },
}

/// A message on its way to the server.
#[derive(Debug, Clone, Copy)]
enum Message {
    Query { fails: bool },
    Execute { fails: bool },
    ExecuteCopy(Fate),
    Sync,
    Data,
    Done,
    Fail,
}

/// The loop of a backend.
#[derive(Debug, Clone, Default)]
struct Server {
    todo: VecDeque<Message>,
    copying: Option<Fate>,
    skipping: bool,
}

impl Server {
    /// Reads one message; answers with the types of its own.
    fn step(&mut self) -> &'static [u8] {
        let Some(message) = self.todo.pop_front() else { return b"" };
        if let Some(fate) = self.copying {
            return match message {
                Message::Sync => b"",
                Message::Data if matches!(fate, Fate::BadData) => self.fail(),
                Message::Data => b"",
                Message::Done => {
                    self.copying = None;
                    b"C"
                }
                _ => self.fail(),
            };
        }
        match message {
            Message::Sync => {
                self.skipping = false;
                b"Z"
            }
            Message::Query { fails } => {
                if fails {
                    b"EZ"
                } else {
                    b"CZ"
                }
            }
            _ if self.skipping => b"",
            Message::Execute { fails: true } | Message::ExecuteCopy(Fate::Refused) => self.fail(),
            Message::Execute { fails: false } => b"2C",
            Message::ExecuteCopy(Fate::Triggered) => {
                self.skipping = true;
                b"2GE"
            }
            Message::ExecuteCopy(fate) => {
                self.copying = Some(fate);
                b"2G"
            }
            // What is left of a COPY that failed.
            Message::Data | Message::Done | Message::Fail => b"",
        }
    }

    fn fail(&mut self) -> &'static [u8] {
        (self.copying, self.skipping) = (None, true);
        b"E"
    }

    /// Answers to what is on its way.
    fn owes(&self) -> usize {
        let mut server = self.clone();
        let mut count = 0;
        while !server.todo.is_empty() {
            count += server.step().iter().filter(|kind| **kind == b'Z').count();
        }
        count
    }
}

/// The driver, the server and what lies between them.
struct World {
    session: Session,
    server: Server,
    /// From the server, on its way.
    pipe: VecDeque<u8>,
    requests: VecDeque<Request>,
    /// The COPY whose end is not sent.
    open: Option<(Fate, usize, bool)>,
    /// The server has said something to the open COPY: it began, or failed.
    heard: bool,
    sent: usize,
    answers: usize,
}

impl World {
    fn send(&mut self, message: Message) {
        let kind = match message {
            Message::Query { .. } => b'Q',
            Message::Execute { .. } | Message::ExecuteCopy(_) => b'E',
            Message::Sync => b'S',
            Message::Data => b'd',
            Message::Done => b'c',
            Message::Fail => b'f',
        };
        self.session.sent(&super::tests::message(kind, b""));
        self.server.todo.push_back(message);
    }

    /// The driver writes what it can: nothing else while a COPY is open.
    fn write(&mut self) {
        if let Some((_, data, done)) = &mut self.open {
            if *data > 0 {
                if self.heard {
                    *data -= 1;
                    self.send(Message::Data);
                }
                return;
            }
            let end = if *done { Message::Done } else { Message::Fail };
            let bytes = super::ENDS[usize::from(*done)];
            match self.session.passage(bytes) {
                Passage::Hold => return,
                Passage::Drop(count) => assert_eq!(count, bytes.len()),
                Passage::Write(count) => {
                    assert_eq!(count, bytes.len());
                    self.send(end);
                    self.send(Message::Sync);
                }
            }
            self.open = None;
            return;
        }
        let Some(request) = self.requests.pop_front() else { return };
        self.sent += 1;
        match request {
            Request::Simple { fails } => self.send(Message::Query { fails }),
            Request::Extended { fails } => {
                self.send(Message::Execute { fails });
                self.send(Message::Sync);
            }
            Request::Copy { fate, early, data, done } => {
                self.send(Message::ExecuteCopy(fate));
                self.send(Message::Sync);
                // Given up at once, there is nothing but the end to send.
                let (data, done) = if early { (0, false) } else { (data, done) };
                (self.open, self.heard) = (Some((fate, data, done)), false);
            }
        }
    }

    fn serve(&mut self) {
        self.pipe.extend(self.server.step());
    }

    fn read(&mut self) {
        let Some(kind) = self.pipe.pop_front() else { return };
        self.answers += usize::from(kind == b'Z');
        self.session.received(&message(kind, if kind == b'Z' { b"I" } else { b"" }));
        // Of requests before, only their own answers are read: all those are read first.
        let own = self.answers + 1 >= self.sent;
        self.heard |= own && matches!(kind, b'G' | b'E');
        if kind == b'E' && own {
            // The caller sees the error and lets go, or goes on without noticing.
            if let Some((_, data, done)) = &mut self.open {
                (*data, *done) = (*data / 2, *done && *data % 2 == 1);
            }
        }
    }

    /// Nothing is called quiet that is not.
    fn check(&self) {
        let state = self.session.state();
        let coming = self.pipe.iter().filter(|kind| **kind == b'Z').count() + self.server.owes();
        let quiet = !state.is_busy() && !state.doubtful && !state.lost;
        assert!(!quiet || coming == 0, "{coming} answers to come: {state:?}");
        assert!(!quiet || self.server.copying.is_none(), "{state:?}");
    }

    fn is_done(&self) -> bool {
        let sent = self.requests.is_empty() && self.open.is_none();
        sent && self.server.todo.is_empty() && self.pipe.is_empty()
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let fate = prop_oneof![
        4 => Just(Fate::Works),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Triggered),
        2 => Just(Fate::BadData),
    ];
    let copy = (fate, any::<bool>(), 0_usize..4, any::<bool>())
        .prop_map(|(fate, early, data, done)| Request::Copy { fate, early, data, done });
    let request = prop_oneof![
        any::<bool>().prop_map(|fails| Request::Simple { fails }),
        any::<bool>().prop_map(|fails| Request::Extended { fails }),
        copy,
    ];
    prop::collection::vec(request, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn what_is_called_quiet_is_quiet(
        requests in requests(),
        turns in prop::collection::vec(0_u8..3, 0..80),
    ) {
        let mut session = Session::new();
        session.sent(b"\0\0\0\x08\0\x03\0\0");
        session.received(b"Z\0\0\0\x05I");
        let mut world = World {
            session,
            server: Server::default(),
            pipe: VecDeque::new(),
            requests: requests.into(),
            open: None,
            heard: false,
            sent: 0,
            answers: 0,
        };
        // After the chosen order, a fixed one until nothing is left. A query at the end tells what
        // is still in doubt.
        world.requests.push_back(Request::Simple { fails: false });
        let mut turns = turns.into_iter().chain([0, 1, 2].into_iter().cycle());
        for _ in 0..500 {
            match turns.next() {
                Some(0) => world.write(),
                Some(1) => world.serve(),
                _ => world.read(),
            }
            world.check();
            if world.is_done() {
                break;
            }
        }
        prop_assert!(world.is_done());
        // The driver expects one answer for each request. If that is what came, all is well; else
        // the difference was seen.
        let state = world.session.state();
        let agreed = world.answers == world.sent;
        prop_assert!(state.lost || agreed, "{:?}", state);
        prop_assert!(!state.lost || !agreed, "{:?}", state);
        prop_assert!(state.lost || !state.is_busy() && !state.doubtful, "{:?}", state);
    }
}
