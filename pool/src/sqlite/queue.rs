//! A bounded queue from async callers to threads.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// One queue that several threads share, so that no job waits behind a slow one while another
/// thread is idle.
#[derive(Debug)]
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    ready: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
    /// Threads that wait for a job.
    idle: usize,
}

/// Why a job was not taken. The job is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl<J> Queue<J> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), closed: false, idle: 0 };
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
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for a job; returns it, and how many wait behind it. `None` when the queue is closed and
    /// empty.
    pub(super) fn pop(&self) -> Option<(J, usize)> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, state.jobs.len()));
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            self.ready.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// The next job if one waits.
    pub(super) fn try_pop(&self) -> Option<J> {
        self.state.lock().jobs.pop_front()
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

    pub(super) fn idle(&self) -> usize {
        self.state.lock().idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_is_emptied_in_order() {
        let queue = Queue::new(3);
        for job in 1..=3 {
            assert_eq!(queue.push(job), Ok(()));
        }
        assert_eq!(queue.push(4), Err(Refused::Full));
        queue.close();
        assert_eq!(queue.push(5), Err(Refused::Closed));
        assert_eq!(queue.pop(), Some((1, 2)));
        assert_eq!((queue.try_pop(), queue.try_pop(), queue.try_pop()), (Some(2), Some(3), None));
        assert_eq!(queue.pop(), None);
        assert!(queue.discard().is_empty());
    }

    #[test]
    fn every_job_is_handed_out_once_among_threads() {
        let queue = Queue::new(10_000);
        let sum: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0;
                        while let Some((job, _behind)) = queue.pop() {
                            sum += job;
                        }
                        sum
                    })
                })
                .collect();
            for job in 1..=1_000 {
                assert_eq!(queue.push(job), Ok(()));
            }
            queue.close();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 500_500);
    }
}
