//! The growing body under readers that come, go and dawdle.

use std::task::Waker;

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;
const WINDOW: usize = 200;

fn growing(expected: Option<u64>) -> (Arc<Growing>, Filler) {
    Growing::new(LIMIT, WINDOW, expected)
}

fn chunk(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

impl PartialEq for BodyError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// What a reader has at once: bytes until it has to wait, and how that ends.
fn drain(reader: &mut Reader) -> (usize, Option<Result<(), BodyError>>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut had = 0;
    loop {
        match reader.poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                had += frame.into_data().map_or(0, |data| data.len());
            }
            Poll::Ready(Some(Err(error))) => {
                return (had, Some(Err(*error.downcast::<BodyError>().unwrap())));
            }
            Poll::Ready(None) => return (had, Some(Ok(()))),
            Poll::Pending => return (had, None),
        }
    }
}

fn has_room(filler: &Filler) -> bool {
    filler.poll_room(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn early_and_late_readers_get_the_whole_and_so_does_the_store() {
    let (growing, filler) = growing(Some(30));
    let mut early = growing.reader().unwrap();
    assert_eq!(filler.push(chunk(10)), Keep::Kept);
    assert_eq!(drain(&mut early), (10, None));
    let mut late = growing.reader().unwrap();
    assert_eq!(late.size_hint().exact(), Some(30));
    assert_eq!(filler.push(chunk(20)), Keep::Kept);
    assert!(!early.is_end_stream());
    assert_eq!(filler.finish(None).unwrap().unwrap().len(), 30);
    assert_eq!(drain(&mut late), (30, Some(Ok(()))));
    assert_eq!(drain(&mut early), (20, Some(Ok(()))));
    assert!(early.is_end_stream());
    let mut last = growing.reader().unwrap();
    assert_eq!(drain(&mut last), (30, Some(Ok(()))), "after the end as well");
}

#[test]
fn readers_that_go_away_take_nothing_from_the_store() {
    let (growing, filler) = growing(None);
    drop(growing.reader().unwrap());
    filler.push(chunk(10));
    drop(growing.reader().unwrap());
    assert!(has_room(&filler));
    filler.push(chunk(10));
    assert_eq!(filler.finish(None).unwrap().unwrap().len(), 20);
}

#[test]
fn a_body_that_breaks_or_lies_about_its_length_is_not_for_the_store() {
    for sent in [9, 11] {
        let (growing, filler) = growing(Some(10));
        let mut reader = growing.reader().unwrap();
        filler.push(chunk(sent));
        assert!(matches!(filler.finish(None), Err(BodyError::Length)));
        assert!(matches!(drain(&mut reader), (_, Some(Err(BodyError::Length)))));
    }
    let (growing, filler) = growing(None);
    let mut reader = growing.reader().unwrap();
    filler.push(chunk(5));
    filler.fail(BodyError::Origin(Arc::from(BoxError::from("reset"))));
    let (had, end) = drain(&mut reader);
    assert!(matches!((had, end), (5, Some(Err(BodyError::Origin(_))))));
    assert!(growing.reader().is_none());
}

#[test]
fn a_filler_that_vanishes_leaves_nobody_waiting() {
    let (growing, filler) = growing(None);
    let mut reader = growing.reader().unwrap();
    drop(filler);
    assert!(matches!(drain(&mut reader), (0, Some(Err(BodyError::Abandoned)))));
}

#[test]
fn a_body_that_is_too_long_is_streamed_no_faster_than_the_slowest_reads() {
    let (growing, filler) = growing(None);
    let mut fast = growing.reader().unwrap();
    let mut slow = growing.reader().unwrap();
    assert_eq!(filler.push(chunk(LIMIT)), Keep::Kept);
    assert_eq!(filler.push(chunk(1)), Keep::GivenUp);
    assert!(growing.reader().is_none(), "its start is about to go");
    assert_eq!(drain(&mut fast), (LIMIT + 1, None));
    assert!(!has_room(&filler));
    assert_eq!(drain(&mut slow), (LIMIT + 1, None));
    assert!(has_room(&filler));
    assert_eq!(growing.state.lock().weight, 0, "what all have had is gone");
    assert_eq!(filler.push(chunk(50)), Keep::Passing);
    drop(slow);
    assert_eq!(drain(&mut fast), (50, None));
    assert!(filler.finish(None).unwrap().is_none());
}

#[test]
fn one_who_holds_up_others_is_cut_and_one_who_is_only_slow_is_not() {
    let (growing, filler) = growing(None);
    let mut fast = growing.reader().unwrap();
    let mut stuck = growing.reader().unwrap();
    filler.push(chunk(LIMIT));
    let mut quick = growing.reader().unwrap();
    assert_eq!(drain(&mut quick), (LIMIT, None));
    filler.cut_slowest();
    assert_eq!(growing.readers(), 3, "while all is kept nobody waits for anybody");
    drop(quick);
    filler.push(chunk(LIMIT));
    assert!(!has_room(&filler));
    filler.cut_slowest();
    assert_eq!(growing.readers(), 2);
    assert_eq!(drain(&mut fast), (2 * LIMIT, None), "both were slow, so neither is cut");
    filler.cut_slowest();
    assert_eq!(growing.readers(), 1);
    assert!(has_room(&filler));
    assert!(matches!(drain(&mut stuck), (0, Some(Err(BodyError::TooSlow)))));
    drop(stuck);
    drop(fast);
    assert_eq!(growing.readers(), 0);
}

#[test]
fn bytes_one_at_a_time_take_no_more_room_than_bytes_in_pages() {
    let (growing, filler) = growing(None);
    let _reader = growing.reader().unwrap();
    let given_up = (0..LIMIT).any(|_| filler.push(chunk(1)) == Keep::GivenUp);
    assert!(given_up);
}

#[test]
fn trailers_reach_the_readers_once() {
    let (growing, filler) = growing(None);
    let mut reader = growing.reader().unwrap();
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"x\"".parse().unwrap())]);
    filler.finish(Some(trailers.clone())).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(frame))) = reader.poll_frame(&mut context) else {
        panic!("the trailers are there")
    };
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    assert_eq!(drain(&mut reader), (0, Some(Ok(()))));
}

#[derive(Debug, Clone)]
enum Event {
    Push(usize),
    Join,
    Leave(usize),
    Read(usize),
    Cut,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..400).prop_map(Event::Push),
        Just(Event::Join),
        (0_usize..4).prop_map(Event::Leave),
        (0_usize..4).prop_map(Event::Read),
        Just(Event::Cut),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_readers_see_a_prefix_and_nothing_leaks(
        events in proptest::collection::vec(event(), 0..60)
    ) {
        let (growing, filler) = growing(None);
        let mut come = 0;
        let mut readers: Vec<(Reader, usize)> = Vec::new();
        for event in events {
            match event {
                Event::Push(length) if has_room(&filler) => {
                    filler.push(chunk(length));
                    come += length;
                }
                Event::Push(_) => {}
                Event::Join => readers.extend(growing.reader().map(|reader| (reader, 0))),
                Event::Leave(at) if at < readers.len() => drop(readers.swap_remove(at)),
                Event::Read(at) => {
                    if let Some((reader, had)) = readers.get_mut(at) {
                        let (more, end) = drain(reader);
                        *had += more;
                        match end {
                            None => prop_assert_eq!(*had, come),
                            Some(Err(BodyError::TooSlow)) => drop(readers.swap_remove(at)),
                            Some(_) => prop_assert!(false, "it has not ended"),
                        }
                    }
                }
                Event::Cut => drop(filler.cut_slowest()),
                Event::Leave(_) => {}
            }
            prop_assert!(growing.readers() <= readers.len());
        }
        readers.clear();
        if !filler.is_keeping() {
            filler.push(chunk(1));
            prop_assert_eq!(growing.state.lock().weight, 0);
        }
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_slow_reader_that_goes_away_lets_the_filler_go_on() {
    let (growing, filler) = growing(None);
    let mut quick = growing.reader().unwrap();
    let slow = growing.reader().unwrap();
    while filler.push(chunk(LIMIT / 2)) != Keep::GivenUp {}
    drain(&mut quick);
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    assert!(filler.poll_room(&mut Context::from_waker(&waker)).is_pending());
    drop(slow);
    assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert!(has_room(&filler));
}
