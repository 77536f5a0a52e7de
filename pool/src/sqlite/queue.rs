//! A bounded queue from async callers to threads, and the sessions of the threads without a job.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// One queue that several threads share, so that no job waits behind a slow one while another
/// thread is idle.
///
/// A thread that waits leaves its session here, where a caller may borrow it while no job waits.
#[derive(Debug)]
pub(super) struct Queue<J, S> {
    state: Mutex<State<J, S>>,
    ready: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<J, S> {
    jobs: VecDeque<J>,
    closed: bool,
    /// Of the threads that wait for a job, less those that are borrowed. The one used last is used
    /// next, since its caches are warm.
    idle: Vec<S>,
}

/// Why a job was not taken. The job is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

/// A job for a thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<J, S> {
    pub(super) job: J,
    pub(super) session: S,
    /// Jobs that wait behind it.
    pub(super) behind: usize,
}

impl<J, S> Queue<J, S> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), closed: false, idle: Vec::new() };
        Self { state: Mutex::new(state), ready: Condvar::new(), limit }
    }

    pub(super) fn push(&self, job: J) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.limit {
            return Err(Refused::Full);
        }
        state.jobs.push_back(job);
        // A thread whose session is borrowed is woken when it comes back.
        let wake = !state.idle.is_empty();
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for a job. Gives the session back without one when the queue is closed and empty. It
    /// may be another thread's session, so what belongs to one is inside it.
    pub(super) fn pop(&self, session: S) -> Result<Taken<J, S>, S> {
        let mut state = self.state.lock();
        state.idle.push(session);
        loop {
            if let Some(session) = state.idle.pop() {
                if let Some(job) = state.jobs.pop_front() {
                    return Ok(Taken { job, session, behind: state.jobs.len() });
                }
                if state.closed {
                    return Err(session);
                }
                state.idle.push(session);
            }
            self.ready.wait(&mut state);
        }
    }

    /// The next job if one waits.
    pub(super) fn try_pop(&self) -> Option<J> {
        self.state.lock().jobs.pop_front()
    }

    /// Does something with the session of a thread that has nothing to do. `None` if there is none,
    /// or a job waits: never waits itself.
    pub(super) fn borrow<R>(&self, use_it: impl FnOnce(&S) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if state.closed || !state.jobs.is_empty() {
            return None;
        }
        let session = state.idle.pop()?;
        drop(state);
        // It comes back by a panic too.
        let borrowed = Borrowed { session: Some(session), queue: self };
        borrowed.session.as_ref().map(use_it)
    }

    fn give_back(&self, session: S) {
        let mut state = self.state.lock();
        state.idle.push(session);
        let wake = state.closed || !state.jobs.is_empty();
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// No more jobs; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Takes out the jobs that wait.
    pub(super) fn discard(&self) -> Vec<J> {
        self.state.lock().jobs.drain(..).collect()
    }

    /// Sessions that nobody uses.
    pub(super) fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }
}

/// A session that comes back when this is dropped.
#[derive(Debug)]
struct Borrowed<'a, J, S> {
    /// `None` only inside `drop`.
    session: Option<S>,
    queue: &'a Queue<J, S>,
}

impl<J, S> Drop for Borrowed<'_, J, S> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.queue.give_back(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_is_emptied_in_order() {
        let queue = Queue::new(3);
        let taken = |job, behind| Ok(Taken { job, session: (), behind });
        for job in 1..=3 {
            assert_eq!(queue.push(job), Ok(()));
        }
        assert_eq!(queue.push(4), Err(Refused::Full));
        queue.close();
        assert_eq!(queue.push(5), Err(Refused::Closed));
        assert_eq!(queue.pop(()), taken(1, 2));
        assert_eq!((queue.try_pop(), queue.try_pop(), queue.try_pop()), (Some(2), Some(3), None));
        assert_eq!(queue.pop(()), Err(()));
        assert!(queue.discard().is_empty());
    }

    #[test]
    fn every_job_is_handed_out_once_among_threads() {
        let queue = Queue::new(10_000);
        let sum: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut sum, mut session) = (0, ());
                        while let Ok(taken) = queue.pop(session) {
                            sum += taken.job;
                            session = taken.session;
                        }
                        sum
                    })
                })
                .collect();
            for job in 1..=1_000 {
                // In between, callers take the sessions away.
                queue.borrow(|()| std::thread::yield_now());
                assert_eq!(queue.push(job), Ok(()));
            }
            queue.close();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 500_500);
    }
    #[test]
    fn a_session_is_lent_while_nobody_waits_and_comes_back_after_a_panic() {
        let queue = Queue::<u8, _>::new(3);
        assert_eq!(queue.borrow(|()| ()), None, "no thread waits");
        queue.give_back(());
        let inner = queue.borrow(|()| {
            assert_eq!((queue.idle(), queue.borrow(|()| ())), (0, None));
            7
        });
        assert_eq!((inner, queue.idle()), (Some(7), 1));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            queue.borrow(|()| panic!("on purpose"))
        }));
        assert_eq!((panicked.is_err(), queue.idle()), (true, 1));
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.borrow(|()| ()), None, "a job waits");
        queue.discard();
        queue.close();
        assert_eq!(queue.borrow(|()| ()), None, "it is closed");
    }

    #[test]
    fn a_closed_queue_lets_its_thread_go_when_the_session_is_back() {
        let queue = Queue::<u8, _>::new(3);
        queue.give_back(7);
        std::thread::scope(|scope| {
            let thread = queue.borrow(|_| {
                let thread = scope.spawn(|| queue.pop(8));
                while queue.idle() == 0 {
                    std::thread::yield_now();
                }
                thread
            });
            queue.close();
            assert!(matches!(thread.unwrap().join().unwrap(), Err(7 | 8)));
        });
    }
}
