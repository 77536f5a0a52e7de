//! Who rides on which pipeline, and who must get off: no clock and no I/O, time comes in as the
//! step since the last look.
//!
//! A pipeline is one connection with many statements under way; the server works on them in their
//! order. So one that is slow, or waits for a lock, holds up those behind it. When a pipeline has
//! answered nothing for a while, those get off and run elsewhere, and so does the one in front if it
//! goes on: nobody's answer depends on who else is on board for longer than that.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::text::TextId;

/// The pace is measured over this time.
const PACE: Duration = Duration::from_millis(20);

/// What does not change while a pool lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pipelines at a time.
    pub(super) pipelines: usize,
    /// Statements under way on one, the abandoned included.
    pub(super) depth: usize,
    /// One pipeline more is due when each has so many under way.
    pub(super) grow_at: usize,
    /// Silence after which those behind the first get off, if it is not proven to be fast.
    pub(super) stall: Duration,
    /// The same if it is.
    pub(super) proven_stall: Duration,
    /// Silence after which the first gets off too.
    pub(super) patience: Duration,
    /// Where an answer takes longer, a connection of one's own is better if there is one.
    pub(super) heavy: Duration,
    /// A pipeline without work ends after this time.
    pub(super) idle: Duration,
}

/// The pipelines of a pool, each over a connection `C`.
#[derive(Debug)]
pub(super) struct Schedule<C> {
    limits: Limits,
    lanes: Vec<Lane<C>>,
    next_id: u64,
    /// The same numbers in every run: all they are for is to break a rhythm.
    dice: fastrand::Rng,
    /// Reads that run elsewhere at present.
    outside: usize,
    opening: bool,
    paused: bool,
    /// For good.
    closed: bool,
}

/// A statement's place on a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    lane: u64,
    number: u64,
}

/// What a look at the connection of a pipeline finds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Answers so far.
    pub(super) answered: u64,
    /// The server owes an answer.
    pub(super) busy: bool,
    /// The connection is gone, or too old, or no longer protects from writes.
    pub(super) unfit: bool,
    /// Somebody waits for a connection of their own.
    pub(super) wanted: bool,
}

/// What follows from a look.
#[derive(Debug)]
pub(super) struct Verdict<C> {
    /// Those who must get off, to be woken outside the lock.
    pub(super) woken: Vec<Waker>,
    /// The text in front held the others up; true if it did for long.
    pub(super) slow: Option<(TextId, bool)>,
    /// The pipeline is over: to be dropped outside the lock.
    pub(super) ended: Option<C>,
}

#[derive(Debug)]
struct Lane<C> {
    id: u64,
    conn: C,
    riders: VecDeque<Rider>,
    /// The number of the first of the riders.
    first: u64,
    /// All before this number are answered, since a later one was.
    passed: u64,
    /// Riders who did not get off yet.
    aboard: usize,
    answered: u64,
    silent: Duration,
    idle: Duration,
    stalled: bool,
    /// Since the pace was last measured: how long, and how many answers.
    measured: (Duration, u64),
    /// An answer takes long.
    heavy: bool,
    /// Takes nobody any more.
    closing: bool,
}

#[derive(Debug)]
struct Rider {
    text: TextId,
    proven: bool,
    /// False while it waits for a neighbour who prepares the same statement, or another: then the
    /// server has nothing of it.
    sent: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Aboard(Option<Waker>),
    /// Was told to get off.
    Moved,
    /// Got off; an answer that nobody waits for may come.
    Gone,
}

impl<C: Clone> Schedule<C> {
    pub(super) fn new(limits: Limits) -> Self {
        let (lanes, next_id) = (Vec::with_capacity(limits.pipelines), 0);
        Self {
            limits,
            lanes,
            next_id,
            dice: fastrand::Rng::with_seed(0),
            outside: 0,
            opening: false,
            paused: false,
            closed: false,
        }
    }

    /// Takes a seat where the fewest are under way; `None` if every pipeline stands still, is full
    /// or is not there.
    ///
    /// Where many are, chance decides between those with about as few. Whoever comes back at once
    /// after an answer would else always find the fewest where it got off, and stay on the slower.
    pub(super) fn board(&mut self, text: TextId, proven: bool) -> Option<(Seat, C)> {
        let depth = self.limits.depth;
        let is_open = |lane: &Lane<C>| lane.is_open() && lane.owed() < depth;
        let least = self.lanes.iter().filter(|lane| is_open(lane)).map(Lane::owed).min()?;
        let most = least + least / 8;
        let is_due = |lane: &Lane<C>| is_open(lane) && lane.owed() <= most;
        let count = self.lanes.iter().filter(|lane| is_due(lane)).count();
        // With few on board the first is as good, and the others may end.
        let nth = if most > least { self.dice.usize(..count) } else { 0 };
        let lane = self.lanes.iter_mut().filter(|lane| is_due(lane)).nth(nth)?;
        let number = lane.first + lane.riders.len() as u64;
        lane.riders.push_back(Rider { text, proven, sent: true, state: State::Aboard(None) });
        lane.aboard += 1;
        Some((Seat { lane: lane.id, number }, lane.conn.clone()))
    }

    /// Whether every pipeline has work, and a lot with each piece of it.
    pub(super) fn is_heavy(&self) -> bool {
        let mut open = self.lanes.iter().filter(|lane| lane.is_open()).peekable();
        open.peek().is_some() && open.all(|lane| lane.heavy && lane.owed() > 0)
    }

    /// True once the rider must get off; else its waker is kept until then. It tells whether it has
    /// `sent` something.
    pub(super) fn must_leave(&mut self, seat: Seat, sent: bool, waker: &Waker) -> bool {
        let Some(rider) = self.lane(seat.lane).and_then(|lane| lane.rider(seat.number)) else {
            return true;
        };
        rider.sent = sent;
        match &mut rider.state {
            State::Aboard(Some(known)) if known.will_wake(waker) => false,
            State::Aboard(known) => {
                *known = Some(waker.clone());
                false
            }
            State::Moved | State::Gone => true,
        }
    }

    /// Goes to the end of the line, since what the rider waited for has come and more is to be sent.
    pub(super) fn renew(&mut self, seat: Seat) -> Seat {
        let Some(lane) = self.lane(seat.lane) else { return seat };
        let number = lane.first + lane.riders.len() as u64;
        let Some(rider) = lane.rider(seat.number) else { return seat };
        let (state, sent) = (std::mem::replace(&mut rider.state, State::Gone), rider.sent);
        let renewed = Rider { text: rider.text, proven: rider.proven, sent: true, state };
        lane.riders.push_back(renewed);
        // What it waited for may have been another's request: that says nothing of those in front.
        if sent {
            lane.passed = lane.passed.max(seat.number + 1);
        }
        lane.forget_passed();
        Seat { lane: seat.lane, number }
    }

    /// Gives up a seat. Returns the connection of a pipeline that waited for this to end.
    pub(super) fn leave(&mut self, seat: Seat, answered: bool) -> Option<C> {
        let lane = self.lane(seat.lane)?;
        lane.rider(seat.number)?.state = State::Gone;
        lane.aboard -= 1;
        if answered {
            lane.passed = lane.passed.max(seat.number + 1);
        }
        lane.forget_passed();
        (lane.closing && lane.aboard == 0).then(|| self.remove(seat.lane)).flatten()
    }

    /// Whether this rider is the first that has no answer yet.
    pub(super) fn is_first(&mut self, seat: Seat) -> bool {
        let Some(lane) = self.lane(seat.lane) else { return false };
        lane.front().is_some_and(|front| lane.first + front as u64 == seat.number)
    }

    /// Counts a read that runs elsewhere.
    pub(super) fn step_outside(&mut self) {
        self.outside += 1;
    }

    pub(super) fn step_inside(&mut self) {
        self.outside -= 1;
    }

    /// True if one pipeline more shall be opened, said once until [`opening_ended`](Self::opening_ended). A lone
    /// caller needs none.
    pub(super) fn wants_one(&mut self) -> bool {
        let open = || self.lanes.iter().filter(|lane| lane.is_open());
        let crowded = open()
            .map(Lane::owed)
            .min()
            .map_or(self.outside > 1, |owed| owed >= self.limits.grow_at);
        let wants =
            crowded && !self.opening && !self.is_shut() && self.lanes.len() < self.limits.pipelines;
        self.opening |= wants;
        wants
    }

    /// What [`wants_one`](Self::wants_one) asked for has come, or could not be had.
    pub(super) fn opening_ended(&mut self) {
        self.opening = false;
    }

    /// One pipeline more, whose connection has `answered` so much. It comes back if it is not
    /// needed any more.
    pub(super) fn opened(&mut self, conn: C, answered: u64) -> Option<C> {
        if self.is_shut() || self.lanes.len() >= self.limits.pipelines {
            return Some(conn);
        }
        self.lanes.push(Lane::new(self.next_id, conn, answered));
        self.next_id += 1;
        None
    }

    /// While `paused`, no pipeline is opened. Those there are end, each with its last rider; returned
    /// are the connections of those that have none.
    pub(super) fn pause(&mut self, paused: bool) -> Vec<C> {
        self.paused = paused;
        self.keep(if paused { 0 } else { usize::MAX })
    }

    /// As [`pause`](Self::pause), for good. Who is held up gets off, to be turned away.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.closed = true;
        self.keep(0)
    }

    fn is_shut(&self) -> bool {
        self.paused || self.closed
    }

    /// Allows so many pipelines; what is too many ends as in [`pause`](Self::pause).
    pub(super) fn resize(&mut self, pipelines: usize) -> Vec<C> {
        self.limits.pipelines = pipelines;
        self.keep(pipelines)
    }

    fn keep(&mut self, pipelines: usize) -> Vec<C> {
        for lane in self.lanes.iter_mut().skip(pipelines) {
            lane.closing = true;
        }
        let ended = self.lanes.extract_if(.., |lane| lane.closing && lane.aboard == 0);
        ended.map(|lane| lane.conn).collect()
    }

    /// The pipelines there are.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u64, &C)> {
        self.lanes.iter().map(|lane| (lane.id, &lane.conn))
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Judges a pipeline by a look at it, `step` after the one before.
    pub(super) fn judge(&mut self, id: u64, look: Look, step: Duration) -> Verdict<C> {
        let (limits, paused, closed) = (self.limits, self.paused, self.closed);
        let mut verdict = Verdict { woken: Vec::new(), slow: None, ended: None };
        let Some(lane) = self.lane(id) else { return verdict };
        lane.closing |= look.unfit;
        lane.measure(&limits, look, step);
        lane.progress(look, step);
        if !lane.waits(look) {
            // The first look at a quiet one may come just after its last answer.
            let quiet = lane.idle > Duration::ZERO;
            lane.closing |= quiet && look.wanted || lane.idle >= limits.idle;
        } else if lane.silent >= lane.stall_limit(&limits) {
            let long = lane.silent >= limits.patience;
            let newly = !lane.stalled || long;
            lane.stalled = true;
            // Who is told to get off has nowhere to go while the pool is paused. When it is closed
            // they are turned away, so they are given time; the one in front is let end, as one on
            // a connection of its own is.
            let unloads = if closed { long } else { !paused };
            if unloads {
                let sure = lane.knows_front();
                verdict.woken = lane.unload(long && !closed || !sure);
                let front = lane.in_front().filter(|_| sure && newly);
                verdict.slow = front.map(|rider| (rider.text, long));
            }
            // Nobody waits for what it does.
            lane.closing |= lane.aboard == 0;
        }
        if lane.closing && lane.aboard == 0 {
            verdict.ended = self.remove(id);
        }
        verdict
    }

    fn lane(&mut self, id: u64) -> Option<&mut Lane<C>> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    fn remove(&mut self, id: u64) -> Option<C> {
        let index = self.lanes.iter().position(|lane| lane.id == id)?;
        Some(self.lanes.swap_remove(index).conn)
    }
}

impl<C> Lane<C> {
    fn new(id: u64, conn: C, answered: u64) -> Self {
        Self {
            id,
            conn,
            riders: VecDeque::new(),
            first: 0,
            passed: 0,
            aboard: 0,
            answered,
            silent: Duration::ZERO,
            idle: Duration::ZERO,
            stalled: false,
            measured: (Duration::ZERO, 0),
            heavy: false,
            closing: false,
        }
    }

    fn is_open(&self) -> bool {
        !self.stalled && !self.closing
    }

    /// Statements that the server has not answered, as far as is known.
    fn owed(&self) -> usize {
        (self.first + self.riders.len() as u64).saturating_sub(self.passed.max(self.first)) as usize
    }

    fn rider(&mut self, number: u64) -> Option<&mut Rider> {
        let index = number.checked_sub(self.first)?;
        self.riders.get_mut(index as usize)
    }

    /// The one that the server works on.
    fn in_front(&self) -> Option<&Rider> {
        self.riders.get(self.front()?)
    }

    /// The first that has sent something and was not passed.
    fn front(&self) -> Option<usize> {
        let passed = self.passed.saturating_sub(self.first) as usize;
        let index = self.riders.iter().skip(passed).position(|rider| rider.sent)?;
        Some(passed + index)
    }

    fn forget_passed(&mut self) {
        // Of one that has sent nothing no answer is to come.
        while self.riders.front().is_some_and(|rider| {
            matches!(rider.state, State::Gone) && (self.first < self.passed || !rider.sent)
        }) {
            self.riders.pop_front();
            self.first += 1;
        }
    }

    /// Whether something is to come. A rider may wait although a later one was answered: for a
    /// request that the driver sent after theirs.
    fn waits(&self, look: Look) -> bool {
        self.owed() > 0 || look.busy && self.aboard > 0
    }

    /// Whether the one in front is the one that the server works on: all before are done.
    fn knows_front(&self) -> bool {
        let front = self.front().unwrap_or(self.riders.len());
        let before = self.riders.iter().take(front);
        before.into_iter().all(|rider| !rider.sent || matches!(rider.state, State::Gone))
    }

    /// How long it may be silent: less if what is in front is not known to be fast.
    fn stall_limit(&self, limits: &Limits) -> Duration {
        match self.in_front() {
            Some(rider) if rider.proven => limits.proven_stall,
            _ => limits.stall,
        }
    }

    /// Measures the pace over some looks at which there was work.
    fn measure(&mut self, limits: &Limits, look: Look, step: Duration) {
        if self.owed() == 0 {
            (self.heavy, self.measured) = (false, (Duration::ZERO, 0));
            return;
        }
        self.measured.0 += step;
        self.measured.1 += look.answered.saturating_sub(self.answered);
        if self.measured.0 >= PACE {
            self.heavy = limits.heavy * (self.measured.1 as u32) < self.measured.0;
            self.measured = (Duration::ZERO, 0);
        }
    }

    /// Measures the silence, or how long there was nothing to say.
    fn progress(&mut self, look: Look, step: Duration) {
        let moved = look.answered != self.answered;
        self.answered = look.answered;
        if moved || !self.waits(look) {
            self.silent = Duration::ZERO;
            self.stalled = false;
        } else {
            self.silent += step;
        }
        if !look.busy && self.silent > Duration::ZERO && self.aboard == 0 {
            // What the abandoned asked for is answered, and no later rider could tell.
            self.passed = self.first + self.riders.len() as u64;
            self.forget_passed();
        }
        let nothing = self.owed() == 0 && self.aboard == 0;
        self.idle = if nothing && !moved { self.idle + step } else { Duration::ZERO };
    }

    /// Tells those behind the first, or all, to get off.
    fn unload(&mut self, all: bool) -> Vec<Waker> {
        let front = self.front();
        let mut woken = Vec::new();
        for (index, rider) in self.riders.iter_mut().enumerate() {
            if (all || Some(index) != front)
                && let State::Aboard(waker) = &mut rider.state
            {
                woken.extend(waker.take());
                rider.state = State::Moved;
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::super::text::Texts;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMITS: Limits = Limits {
        pipelines: 2,
        depth: 4,
        grow_at: 3,
        stall: Duration::from_millis(2),
        proven_stall: Duration::from_millis(4),
        patience: Duration::from_millis(6),
        heavy: Duration::from_millis(2),
        idle: Duration::from_millis(10),
    };

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn text(name: &str) -> TextId {
        super::super::text::identify(&Texts::new().hasher(), name)
    }

    fn schedule(lanes: u32) -> Schedule<u32> {
        let mut schedule = Schedule::new(LIMITS);
        for conn in 0..lanes {
            assert_eq!(schedule.opened(conn, 0), None);
        }
        schedule
    }

    fn busy(answered: u64) -> Look {
        Look { answered, busy: true, ..Look::default() }
    }

    fn idle(answered: u64) -> Look {
        Look { answered, ..Look::default() }
    }

    fn board(schedule: &mut Schedule<u32>) -> (Seat, u32) {
        schedule.board(text("a"), false).unwrap()
    }

    #[test]
    fn statements_go_where_the_fewest_are_under_way() {
        let mut schedule = schedule(2);
        let seats: Vec<_> = (0..8).map(|_| board(&mut schedule)).collect();
        assert_eq!(seats.iter().map(|(_, conn)| *conn).sum::<u32>(), 4);
        assert!(schedule.board(text("a"), false).is_none(), "both are full");
        // One that was dropped is still under way; one that was answered is not.
        assert_eq!(schedule.leave(seats[6].0, false), None);
        assert!(schedule.board(text("a"), false).is_none());
        assert_eq!(schedule.leave(seats[1].0, true), None);
        assert_eq!(board(&mut schedule).1, seats[1].1);
    }

    #[test]
    fn nobody_stays_on_the_slower_pipeline() {
        let mut schedule = Schedule::new(Limits { depth: 128, ..LIMITS });
        let mut lanes = [VecDeque::new(), VecDeque::new()];
        for conn in 0..2_usize {
            assert_eq!(schedule.opened(conn, 0), None);
        }
        let mut served = [0_u32; 64];
        for task in 0..64 {
            let (seat, conn) = schedule.board(text("a"), true).unwrap();
            lanes[conn].push_back((task, seat));
        }
        for _ in 0..1_000 {
            for (lane, answers) in [(0, 2), (1, 4)] {
                for _ in 0..answers {
                    let (task, seat): (usize, Seat) = lanes[lane].pop_front().unwrap();
                    assert_eq!(schedule.leave(seat, true), None);
                    served[task] += 1;
                    let (seat, conn) = schedule.board(text("a"), true).unwrap();
                    lanes[conn].push_back((task, seat));
                }
            }
        }
        let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
        assert!(most * 2 < least * 3, "{served:?}");
    }

    #[test]
    fn those_behind_a_silent_one_get_off_and_later_the_silent_one_too() {
        let mut schedule = schedule(1);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let first = schedule.board(text("slow"), false).unwrap().0;
        let second = board(&mut schedule).0;
        for seat in [first, second] {
            assert!(!schedule.must_leave(seat, true, &waker));
        }
        assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
        let verdict = schedule.judge(0, busy(0), MS);
        assert_eq!(verdict.woken.len(), 1);
        assert_eq!(verdict.slow, Some((text_of(&schedule), false)));
        assert!(
            schedule.must_leave(second, true, &waker) && !schedule.must_leave(first, true, &waker)
        );
        assert!(schedule.board(text("a"), false).is_none(), "it stands still");
        assert_eq!(schedule.leave(second, false), None);
        for _ in 0..3 {
            assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
        }
        let verdict = schedule.judge(0, busy(0), MS);
        assert_eq!((verdict.woken.len(), verdict.slow.map(|slow| slow.1)), (1, Some(true)));
        assert_eq!(schedule.leave(first, false), None);
        // Nobody waits for what it does.
        assert_eq!(schedule.judge(0, busy(0), MS).ended, Some(0));
        assert_eq!(schedule.len(), 0);
    }

    /// The text in front of the only pipeline.
    fn text_of(schedule: &Schedule<u32>) -> TextId {
        schedule.lanes[0].in_front().unwrap().text
    }

    #[test]
    fn one_that_sends_more_after_others_goes_behind_them() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let (slow, other) =
            (schedule.board(text("slow"), false).unwrap().0, board(&mut schedule).0);
        assert!(!schedule.must_leave(slow, true, &waker));
        // It was prepared, and is sent now.
        let slow = schedule.renew(slow);
        assert_eq!(schedule.leave(other, true), None);
        let behind = board(&mut schedule).0;
        schedule.judge(0, busy(2), MS);
        schedule.judge(0, busy(2), MS);
        let verdict = schedule.judge(0, busy(2), MS);
        assert_eq!(verdict.slow, Some((text_of(&schedule), false)));
        assert!(
            schedule.must_leave(behind, true, &waker) && !schedule.must_leave(slow, true, &waker)
        );
    }

    #[test]
    fn one_that_has_sent_nothing_is_not_in_front() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let unsent = board(&mut schedule).0;
        let slow = schedule.board(text("slow"), false).unwrap().0;
        assert!(!schedule.must_leave(unsent, false, &waker));
        assert!(!schedule.must_leave(slow, true, &waker));
        schedule.judge(0, busy(0), MS);
        assert_eq!(schedule.judge(0, busy(0), MS).slow, Some((text_of(&schedule), false)));
        assert!(schedule.must_leave(unsent, false, &waker));
        assert!(!schedule.must_leave(slow, true, &waker));
    }

    #[test]
    fn where_it_is_not_known_who_is_in_front_all_get_off() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
        // The first waits for something that the driver sent behind the second.
        assert_eq!(schedule.leave(second, true), None);
        for _ in 0..3 {
            assert!(schedule.judge(0, busy(1), MS).slow.is_none());
        }
        assert!(schedule.must_leave(first, true, &waker));
        assert!(schedule.board(text("a"), false).is_none(), "it stands still");
    }

    #[test]
    fn nobody_gets_off_a_silent_pipeline_of_a_paused_pool() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let seats = [board(&mut schedule).0, board(&mut schedule).0];
        assert!(schedule.pause(true).is_empty());
        for _ in 0..20 {
            assert!(schedule.judge(0, busy(0), MS).woken.is_empty());
        }
        assert!(seats.iter().all(|seat| !schedule.must_leave(*seat, true, &waker)));
        assert_eq!(schedule.leave(seats[0], true), None);
        assert_eq!(schedule.leave(seats[1], true), Some(0));
    }

    #[test]
    fn those_behind_a_stuck_one_get_off_a_closed_pool_and_it_does_not() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
        assert!(schedule.close().is_empty() && schedule.pause(true).is_empty());
        for _ in 0..5 {
            schedule.judge(0, busy(0), MS);
        }
        assert!(!schedule.must_leave(second, true, &waker), "it is given time");
        for _ in 0..5 {
            schedule.judge(0, busy(0), MS);
        }
        assert!(schedule.must_leave(second, true, &waker));
        assert!(!schedule.must_leave(first, true, &waker));
        assert!(schedule.pause(false).is_empty());
        assert_eq!(schedule.opened(1, 0), Some(1));
        assert_eq!(schedule.leave(second, false), None);
        assert_eq!(schedule.leave(first, true), Some(0));
    }

    #[test]
    fn one_that_sends_for_the_first_time_says_nothing_of_those_in_front() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let slow = schedule.board(text("slow"), false).unwrap().0;
        let unsent = board(&mut schedule).0;
        assert!(!schedule.must_leave(unsent, false, &waker));
        let sent = schedule.renew(unsent);
        assert!(schedule.is_first(slow) && !schedule.is_first(sent));
        schedule.judge(0, busy(0), MS);
        assert_eq!(schedule.judge(0, busy(0), MS).woken.len(), 1);
        assert!(!schedule.must_leave(slow, true, &waker));
        assert!(schedule.must_leave(sent, true, &waker));
        assert_eq!(schedule.leave(sent, false), None);
        assert_eq!(schedule.leave(slow, true), None);
        assert_eq!(schedule.lanes[0].owed(), 1, "of the one that was sent");
    }

    #[test]
    fn a_proven_text_is_given_more_time() {
        let mut schedule = schedule(1);
        schedule.board(text("a"), true).unwrap();
        for _ in 0..3 {
            assert!(schedule.judge(0, busy(0), MS).slow.is_none());
        }
        assert!(schedule.judge(0, busy(0), MS).slow.is_some());
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let seat = board(&mut schedule).0;
        board(&mut schedule);
        for answered in 0..50 {
            schedule.judge(0, busy(answered / 2), MS);
        }
        assert!(!schedule.must_leave(seat, true, &waker));
        assert!(!schedule.lanes[0].stalled);
    }

    #[test]
    fn an_abandoned_statement_in_front_holds_nobody() {
        let mut schedule = schedule(1);
        let waker = Waker::from(Arc::new(Woken::default()));
        let first = board(&mut schedule).0;
        let second = board(&mut schedule).0;
        assert!(!schedule.must_leave(second, true, &waker));
        assert_eq!(schedule.leave(first, false), None);
        schedule.judge(0, busy(0), MS);
        assert_eq!(schedule.judge(0, busy(0), MS).woken.len(), 1);
        assert!(schedule.must_leave(second, true, &waker));
    }

    #[test]
    fn a_pipeline_without_work_ends_in_time_or_when_its_connection_is_wanted() {
        for (wanted, looks) in [(false, 10), (true, 1)] {
            let mut schedule = schedule(1);
            let seat = board(&mut schedule).0;
            assert_eq!(schedule.leave(seat, true), None);
            let look = Look { wanted, ..idle(1) };
            assert!(schedule.judge(0, look, MS).ended.is_none(), "it answered a moment ago");
            for _ in 1..looks {
                assert!(schedule.judge(0, look, MS).ended.is_none());
            }
            assert_eq!(schedule.judge(0, look, MS).ended, Some(0));
        }
    }

    #[test]
    fn an_unfit_pipeline_ends_with_its_last_rider() {
        let mut schedule = schedule(1);
        let (first, second) = (board(&mut schedule).0, board(&mut schedule).0);
        let unfit = Look { unfit: true, ..busy(0) };
        assert!(schedule.judge(0, unfit, MS).ended.is_none());
        assert!(schedule.board(text("a"), false).is_none());
        assert_eq!(schedule.leave(first, true), None);
        assert_eq!(schedule.leave(second, true), Some(0));
    }

    #[test]
    fn pipelines_open_one_by_one_when_there_is_a_crowd() {
        let mut schedule = schedule(0);
        schedule.step_outside();
        assert!(!schedule.wants_one(), "a lone caller needs none");
        schedule.step_outside();
        assert!(schedule.wants_one() && !schedule.wants_one());
        schedule.opening_ended();
        assert_eq!(schedule.opened(0, 0), None);
        let seats: Vec<_> = (0..2).map(|_| board(&mut schedule).0).collect();
        assert!(!schedule.wants_one());
        board(&mut schedule);
        assert!(schedule.wants_one());
        schedule.opening_ended();
        assert_eq!(schedule.opened(1, 0), None);
        for _ in 0..3 {
            board(&mut schedule);
        }
        assert!(!schedule.wants_one(), "there are two");
        schedule.pause(true);
        assert_eq!(schedule.opened(2, 0), Some(2));
        assert_eq!(seats.len(), 2);
    }

    #[test]
    fn a_pipeline_is_heavy_while_its_answers_take_long() {
        let mut schedule = schedule(1);
        board(&mut schedule);
        for answered in 0..20 {
            schedule.judge(0, busy(answered / 3), MS);
        }
        assert!(schedule.is_heavy());
        for answered in 0..20 {
            schedule.judge(0, busy(10 + answered), MS);
        }
        assert!(!schedule.is_heavy());
    }

    /// What may happen to a pipeline.
    #[derive(Debug, Clone)]
    enum Event {
        Board,
        Leave { nth: usize, answered: bool },
        Look { answered: bool, busy: bool },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Board),
            (0..8_usize, any::<bool>()).prop_map(|(nth, answered)| Event::Leave { nth, answered }),
            (any::<bool>(), any::<bool>())
                .prop_map(|(answered, busy)| Event::Look { answered, busy }),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_kept_on_a_silent_pipeline_and_every_one_ends(
            events in prop::collection::vec(event(), 0..200),
        ) {
            let mut schedule = schedule(2);
            let waker = Waker::from(Arc::new(Woken::default()));
            let mut aboard: Vec<Seat> = Vec::new();
            let mut ended = Vec::new();
            let mut answers = 0;
            for event in events {
                match event {
                    Event::Board => {
                        if let Some((seat, conn)) = schedule.board(text("a"), false) {
                            prop_assert!(!ended.contains(&conn));
                            prop_assert!(!schedule.must_leave(seat, true, &waker));
                            aboard.push(seat);
                        }
                    }
                    Event::Leave { nth, answered } if nth < aboard.len() => {
                        ended.extend(schedule.leave(aboard.remove(nth), answered));
                    }
                    Event::Leave { .. } => {}
                    Event::Look { answered, busy } => {
                        answers += u64::from(answered);
                        for id in 0..2 {
                            let look = Look { answered: answers, busy, ..Look::default() };
                            ended.extend(schedule.judge(id, look, MS).ended);
                        }
                    }
                }
                prop_assert!(schedule.lanes.iter().all(|lane| lane.riders.len() <= 200));
            }
            // Silence: everybody must get off, and every pipeline ends.
            for _ in 0..30 {
                for id in 0..2 {
                    let look = Look { answered: answers, busy: true, ..Look::default() };
                    ended.extend(schedule.judge(id, look, MS).ended);
                }
                let mut kept = Vec::new();
                for seat in aboard.drain(..) {
                    // One that was passed by a later answer has its own at hand.
                    let lane = schedule.lane(seat.lane).unwrap();
                    let answered = seat.number < lane.passed;
                    if answered || schedule.must_leave(seat, true, &waker) {
                        ended.extend(schedule.leave(seat, answered));
                    } else {
                        kept.push(seat);
                    }
                }
                aboard = kept;
            }
            prop_assert!(aboard.is_empty());
            ended.sort_unstable();
            prop_assert_eq!(ended, vec![0, 1], "each connection came back once");
        }
    }
}
