//! A body that grows: one origin body fills it, any number of readers stream it from its start.
//!
//! The filler belongs to a task of its own, so that a reader who goes away takes nothing with it.
//! While the body may still be stored everything is kept, up to a limit. Past the limit it is
//! given up for storing: nobody joins any more, what all readers have had is let go, and the
//! origin is held back once the slowest reader is a window behind.
//!
//! Pure but for the lock and the wakers: time, tasks and the origin are the filler's owner's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::BoxError;

/// What a chunk costs beside its bytes, so that an origin that sends one byte at a time fills
/// no more memory than one that sends pages.
const CHUNK_COST: usize = 64;

/// A body under way, shared by its filler and its readers.
pub(crate) struct Growing {
    state: Mutex<State>,
    /// Most bytes that are kept to be stored.
    limit: usize,
    /// Most bytes, costs included, that the slowest reader may be behind once nothing is stored.
    window: usize,
    /// What the origin's `Content-Length` promised.
    expected: Option<u64>,
}

/// Why a body ends before its end.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The origin's body failed; all its readers share the one error.
    #[error("the origin's body failed")]
    Origin(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The origin's body was shorter or longer than its `Content-Length`.
    #[error("the origin's body has not the length it announced")]
    Length,
    /// The origin sent nothing for too long, or its task was dropped with its runtime.
    #[error("the origin's body was given up")]
    Abandoned,
    /// This reader took nothing for so long that it held up the others.
    #[error("the reader was too slow for those it shared the body with")]
    TooSlow,
}

struct State {
    chunks: VecDeque<Chunk>,
    /// Chunks that have left at the front.
    gone: usize,
    /// Bytes and costs of `chunks`.
    weight: usize,
    /// Bytes that have come.
    come: u64,
    /// Whether the whole body is kept for the store.
    keeping: bool,
    end: Option<Result<(), BodyError>>,
    trailers: Option<HeaderMap>,
    readers: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Readers that have not been cut.
    live: usize,
    filler: Option<Waker>,
}

struct Chunk {
    bytes: Bytes,
    /// Readers that have not had it.
    pending: usize,
}

#[derive(Default)]
struct Slot {
    /// The next chunk, counted from the first that came.
    at: usize,
    had: u64,
    had_trailers: bool,
    cut: bool,
    waker: Option<Waker>,
}

/// Whether a chunk still fits the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All that came is kept.
    Kept,
    /// This chunk was one too many.
    GivenUp,
    /// Nothing has been kept for a while.
    Passing,
}

impl Growing {
    /// A body of which `limit` bytes are kept for the store; and its filler.
    pub(crate) fn new(limit: usize, window: usize, expected: Option<u64>) -> (Arc<Self>, Filler) {
        let state = State {
            chunks: VecDeque::new(),
            gone: 0,
            weight: 0,
            come: 0,
            keeping: true,
            end: None,
            trailers: None,
            readers: Vec::new(),
            free: Vec::new(),
            live: 0,
            filler: None,
        };
        let growing = Arc::new(Self { state: Mutex::new(state), limit, window, expected });
        (Arc::clone(&growing), Filler { growing })
    }

    /// A reader from the first byte on; `None` if that byte is gone or the body broke.
    pub(crate) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if !state.keeping || matches!(state.end, Some(Err(_))) {
            return None;
        }
        for chunk in &mut state.chunks {
            chunk.pending += 1;
        }
        state.live += 1;
        let slot = Some(Slot::default());
        let at = if let Some(at) = state.free.pop() {
            state.readers[at] = slot;
            at
        } else {
            state.readers.push(slot);
            state.readers.len() - 1
        };
        Some(Reader { growing: Arc::clone(self), slot: at })
    }

    #[cfg(test)]
    fn readers(&self) -> usize {
        self.state.lock().live
    }

    /// How long the origin said that the body is.
    pub(crate) fn expected(&self) -> Option<u64> {
        self.expected
    }
}

/// The side of the origin. Dropped before the end, it breaks the body for its readers.
pub(crate) struct Filler {
    growing: Arc<Growing>,
}

impl Filler {
    /// Waits until more may be read from the origin. Ready at once while the body is kept.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.growing.state.lock();
        if state.keeping || state.weight <= self.growing.window {
            return Poll::Ready(());
        }
        state.filler = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits until no reader is left.
    pub(crate) fn poll_alone(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.growing.state.lock();
        if state.live == 0 {
            return Poll::Ready(());
        }
        state.filler = Some(context.waker().clone());
        Poll::Pending
    }

    /// Appends what came.
    pub(crate) fn push(&self, bytes: Bytes) -> Keep {
        if bytes.is_empty() {
            return if self.is_keeping() { Keep::Kept } else { Keep::Passing };
        }
        let (keep, wakers) = {
            let mut state = self.growing.state.lock();
            let state = &mut *state;
            state.come += bytes.len() as u64;
            state.weight += bytes.len() + CHUNK_COST;
            state.chunks.push_back(Chunk { bytes, pending: state.live });
            let fits = state.come <= self.growing.limit as u64
                && state.chunks.len() <= self.growing.limit / CHUNK_COST + CHUNK_COST;
            let keep = match (state.keeping, fits) {
                (true, true) => Keep::Kept,
                (true, false) => Keep::GivenUp,
                (false, _) => Keep::Passing,
            };
            state.keeping &= fits;
            state.let_go();
            (keep, state.take_wakers())
        };
        wake(wakers);
        keep
    }

    /// Whether everything that came is still kept.
    pub(crate) fn is_keeping(&self) -> bool {
        self.growing.state.lock().keeping
    }

    /// Breaks the body for the readers that hold up others who have had everything. Says whether
    /// there were any.
    pub(crate) fn cut_slowest(&self) -> bool {
        let wakers = {
            let mut state = self.growing.state.lock();
            let state = &mut *state;
            if state.keeping || state.weight <= self.growing.window {
                // They hold up nobody.
                return false;
            }
            let (first, last) = (state.gone, state.gone + state.chunks.len());
            if !state.readers.iter().flatten().any(|slot| slot.at == last && !slot.cut) {
                return false;
            }
            let mut wakers = Vec::new();
            for slot in state.readers.iter_mut().flatten() {
                if slot.at == first && first < last && !slot.cut {
                    slot.cut = true;
                    state.live -= 1;
                    for chunk in &mut state.chunks {
                        chunk.pending -= 1;
                    }
                    wakers.extend(slot.waker.take());
                }
            }
            state.let_go();
            wakers
        };
        let any = !wakers.is_empty();
        wake(wakers);
        any
    }

    /// The end of the origin's body: the whole of it in one piece if it was kept and has the
    /// length that was announced.
    ///
    /// Copied even if it came in one piece: that piece may be a small part of a large read
    /// buffer, which the store would then keep as long as the entry.
    pub(crate) fn finish(self, trailers: Option<HeaderMap>) -> Result<Option<Bytes>, BodyError> {
        let (whole, wakers) = {
            let mut state = self.growing.state.lock();
            let right = self.growing.expected.is_none_or(|expected| expected == state.come);
            let end = if right { Ok(()) } else { Err(BodyError::Length) };
            state.trailers = trailers;
            state.end = Some(end.clone());
            let whole = end.map(|()| state.keeping.then(|| state.chunks_so_far()));
            (whole, state.take_wakers())
        };
        wake(wakers);
        // Outside the lock: readers go on while it is put together.
        whole.map(|chunks| chunks.map(|chunks| join(&chunks)))
    }

    /// Breaks the body for all readers.
    pub(crate) fn fail(self, error: BodyError) {
        self.end(error);
    }

    fn end(&self, error: BodyError) {
        let wakers = {
            let mut state = self.growing.state.lock();
            if state.end.is_some() {
                return;
            }
            state.end = Some(Err(error));
            state.take_wakers()
        };
        wake(wakers);
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.end(BodyError::Abandoned);
    }
}

/// One who streams the body.
pub(crate) struct Reader {
    growing: Arc<Growing>,
    slot: usize,
}

impl Reader {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut guard = self.growing.state.lock();
        let state = &mut *guard;
        let Some(slot) = state.readers[self.slot].as_mut() else { return Poll::Ready(None) };
        if slot.cut {
            return Poll::Ready(Some(Err(BodyError::TooSlow.into())));
        }
        if let Some(chunk) = state.chunks.get_mut(slot.at - state.gone) {
            let bytes = chunk.bytes.clone();
            chunk.pending -= 1;
            slot.at += 1;
            slot.had += bytes.len() as u64;
            let filler = state.let_go();
            drop(guard);
            wake(filler);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &state.end {
            None => {
                let waker = context.waker();
                if !slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    slot.waker = Some(waker.clone());
                }
                Poll::Pending
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone().into()))),
            Some(Ok(())) => {
                let trailers = state.trailers.as_ref().filter(|_| !slot.had_trailers).cloned();
                slot.had_trailers = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.growing.state.lock();
        let Some(slot) = &state.readers[self.slot] else { return true };
        let had_all = slot.at == state.gone + state.chunks.len();
        let trailers = state.trailers.is_some() && !slot.had_trailers;
        matches!(state.end, Some(Ok(()))) && had_all && !trailers && !slot.cut
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = self.growing.state.lock();
        let had = state.readers[self.slot].as_ref().map_or(0, |slot| slot.had);
        let whole = match state.end {
            Some(Ok(())) => Some(state.come),
            _ => self.growing.expected,
        };
        match whole {
            Some(whole) => SizeHint::with_exact(whole.saturating_sub(had)),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(state.come.saturating_sub(had));
                hint
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let filler = {
            let mut state = self.growing.state.lock();
            let state = &mut *state;
            let Some(slot) = state.readers[self.slot].take() else { return };
            state.free.push(self.slot);
            if !slot.cut {
                state.live -= 1;
                for chunk in state.chunks.iter_mut().skip(slot.at - state.gone) {
                    chunk.pending -= 1;
                }
            }
            // Whatever room there is, the filler has to know who is left.
            state.let_go().or_else(|| state.filler.take())
        };
        wake(filler);
    }
}

impl State {
    /// Drops what nobody needs any more; the filler, if that may have made room for it.
    fn let_go(&mut self) -> Option<Waker> {
        if self.keeping {
            return None;
        }
        let mut any = false;
        while let Some(front) = self.chunks.front().filter(|front| front.pending == 0) {
            self.weight -= front.bytes.len() + CHUNK_COST;
            self.gone += 1;
            self.chunks.pop_front();
            any = true;
        }
        if any { self.filler.take() } else { None }
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().flatten().filter_map(|slot| slot.waker.take()).collect()
    }

    fn chunks_so_far(&self) -> Vec<Bytes> {
        self.chunks.iter().map(|chunk| chunk.bytes.clone()).collect()
    }
}

/// Outside the lock, which the woken would want at once.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

fn join(chunks: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        whole.extend_from_slice(chunk);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests;
