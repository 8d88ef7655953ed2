//! Strangers take turns on their thread: all of them together run for a while, and then accepted connections go first.
//!
//! A stranger's requests cost as much as others', and thousands of strangers may send them at once. So a connection
//! that is not accepted yet runs only while strangers have used less than their part of the thread since it last looked
//! at its sockets. The others wait in line, one line for each address, and the lines take turns: a connection from
//! elsewhere does not wait behind all those of one address. If nobody else of its address waits, it does not wait for
//! the others at all, up to twice that part.
//!
//! When an accepted connection has run, strangers pause for a while as well: a thread that never pauses slows down the
//! threads that commit.
//!
//! Who only has to end does not wait: its buffers would stay until then, and those of thousands add up.
//!
//! Who waits for the first turn is no stranger yet, and thousands may: such a connection has no memory but its place in
//! line.
//!
//! Keeps: at least one stranger runs each time; nobody waits while there is nothing else to do. Leaves out: how many
//! strangers there are (`core::strangers`), what each may send (`core::patience`).

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::actors::strangers::Stranger;
use crate::core::strangers::Place;

/// How much time strangers may use of a thread until it looks at its sockets again.
const PART: Duration = Duration::from_micros(250);

/// The same for one of an address from which nobody waits.
const PART_ELSEWHERE: Duration = Duration::from_millis(1);

/// How long they pause then, if anybody else ran meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    static PACE: Pace = Pace::default();
}

/// Who is on a connection.
#[derive(Clone)]
pub(super) struct Who(Rc<Inner>);

struct Inner {
    place: Place,
    /// Set once the connection is let in.
    stranger: OnceCell<Arc<Stranger>>,
}

impl Who {
    /// A connection from this place.
    pub(super) fn from(place: Place) -> Self {
        Self(Rc::new(Inner { place, stranger: OnceCell::new() }))
    }

    pub(super) fn is(&self, stranger: &Arc<Stranger>) {
        // Called once for each connection.
        let _ = self.0.stranger.set(Arc::clone(stranger));
    }

    fn was_accepted(&self) -> bool {
        self.0.stranger.get().is_some_and(|stranger| stranger.was_accepted())
    }

    fn ends(&self) -> bool {
        self.0.stranger.get().is_some_and(|stranger| stranger.ends())
    }
}

/// Whether strangers wait for their turn on this thread.
pub(super) fn strangers_wait() -> bool {
    PACE.with(|pace| !pace.line.borrow().is_empty())
}

/// A connection that runs when it is its turn.
pub(super) struct Paced<B, F> {
    who: Who,
    /// Makes the connection, at its first turn.
    begin: Option<B>,
    connection: Option<Pin<Box<F>>>,
    ticket: Option<Rc<Ticket>>,
}

/// A place in the line.
struct Ticket {
    waker: Waker,
    has_turn: Cell<bool>,
}

impl<B: FnOnce() -> F, F: Future> Paced<B, F> {
    pub(super) const fn new(who: Who, begin: B) -> Self {
        Self { who, begin: Some(begin), connection: None, ticket: None }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(begin) = self.begin.take() {
            self.connection = Some(Box::pin(begin()));
        }
        // Once begun, there is one.
        self.connection.as_mut().map_or(Poll::Pending, |connection| connection.as_mut().poll(cx))
    }
}

impl<B: FnOnce() -> F + Unpin, F: Future> Future for Paced<B, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        PACE.with(|pace| {
            if this.who.was_accepted() {
                pace.others.set(true);
                return this.run(cx);
            }
            let may_run =
                this.who.ends() || pace.may_run(&mut this.ticket, this.who.0.place, cx.waker());
            if !may_run {
                return Poll::Pending;
            }
            let began = now();
            let polled = this.run(cx);
            pace.has_used(now().saturating_duration_since(began));
            polled
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a connection ran is measured")]
fn now() -> Instant {
    Instant::now()
}

/// The turns of a thread.
#[derive(Default)]
struct Pace {
    /// Time used by strangers since the thread last looked at its sockets.
    used: Cell<Duration>,
    /// Whether an accepted connection ran meanwhile.
    others: Cell<bool>,
    line: RefCell<Line>,
    /// Whether a task waits for the thread to do that.
    counting: Cell<bool>,
}

impl Pace {
    fn may_run(&self, ticket: &mut Option<Rc<Ticket>>, place: Place, waker: &Waker) -> bool {
        if let Some(waiting) = ticket.take_if(|ticket| ticket.has_turn.get()) {
            drop(waiting);
            return true;
        }
        let mut line = self.line.borrow_mut();
        match ticket {
            Some(waiting) if waiting.waker.will_wake(waker) => return false,
            None if line.is_empty() && self.used.get() < PART => return true,
            // It comes from elsewhere than those who wait, and has several turns before it until it is accepted.
            None if !line.has(place) && self.used.get() < PART_ELSEWHERE => return true,
            // If it was in line, another task runs it now, and it loses its place.
            Some(_) | None => {}
        }
        let waiting = Rc::new(Ticket { waker: waker.clone(), has_turn: Cell::new(false) });
        line.push(place, &waiting);
        *ticket = Some(waiting);
        drop(line);
        self.count();
        false
    }

    /// A stranger ran for this long.
    fn has_used(&self, time: Duration) {
        self.used.set(self.used.get() + time);
        self.count();
        if self.used.get() < PART {
            self.call();
        }
    }

    /// Lets the first in line run.
    fn call(&self) {
        let first = self.line.borrow_mut().pop();
        if let Some(first) = first {
            first.has_turn.set(true);
            first.waker.wake_by_ref();
        }
    }

    /// Resets the count each time the thread has looked at its sockets, until no stranger ran meanwhile.
    fn count(&self) {
        if self.counting.replace(true) {
            return;
        }
        actix_web::rt::spawn(async {
            loop {
                tokio::task::yield_now().await;
                if PACE.with(|pace| pace.used.get() >= PART) {
                    // Threads that commit may wait for this processor.
                    std::thread::yield_now();
                    if PACE.with(|pace| pace.others.take()) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                let goes_on = PACE.with(|pace| {
                    let used = pace.used.take();
                    pace.call();
                    let goes_on = !used.is_zero() || !pace.line.borrow().is_empty();
                    pace.counting.set(goes_on);
                    goes_on
                });
                if !goes_on {
                    return;
                }
            }
        });
    }
}

/// Those who wait.
#[derive(Default)]
struct Line {
    by_place: HashMap<Place, VecDeque<Rc<Ticket>>>,
    /// The places of those who wait, in the order of their turns.
    order: VecDeque<Place>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether anybody waits who comes from there.
    fn has(&self, place: Place) -> bool {
        self.by_place.contains_key(&place)
    }

    fn push(&mut self, place: Place, ticket: &Rc<Ticket>) {
        let waiting = self.by_place.entry(place).or_default();
        if waiting.is_empty() {
            self.order.push_back(place);
        }
        waiting.push_back(Rc::clone(ticket));
    }

    /// The next one whose connection still exists.
    fn pop(&mut self) -> Option<Rc<Ticket>> {
        while let Some(place) = self.order.pop_front() {
            let Some(waiting) = self.by_place.get_mut(&place) else { continue };
            // If nobody else holds a ticket, its connection has ended.
            let next = std::iter::from_fn(|| waiting.pop_front())
                .find(|ticket| Rc::strong_count(ticket) > 1);
            if waiting.is_empty() {
                self.by_place.remove(&place);
            } else {
                self.order.push_back(place);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use actix_web::rt::task::JoinHandle;

    use super::*;
    use crate::actors::complaints::Complaints;
    use crate::actors::crowd::Crowd;
    use crate::model::Limits;

    fn place(last: u8) -> Place {
        Place::of(Some([127, 0, 0, last].into()))
    }

    /// A connection from elsewhere does not wait behind all those of one address; closed ones are skipped.
    #[test]
    fn the_addresses_of_those_who_wait_take_turns() {
        let mut line = Line::default();
        let ticket =
            || Rc::new(Ticket { waker: Waker::noop().clone(), has_turn: Cell::new(false) });
        let waiting: Vec<_> =
            [1, 1, 1, 1, 2].into_iter().map(|last| (place(last), ticket())).collect();
        waiting.iter().for_each(|(place, ticket)| line.push(*place, ticket));
        let gone = ticket();
        line.push(place(3), &gone);
        drop(gone);
        let order: Vec<_> = std::iter::from_fn(|| line.pop())
            .map(|next| waiting.iter().position(|(_, ticket)| Rc::ptr_eq(ticket, &next)))
            .collect();
        assert_eq!(order, [Some(0), Some(4), Some(1), Some(2), Some(3)]);
        assert!(line.is_empty() && line.by_place.is_empty());
    }

    /// Strangers of one address, each of which uses up what all of them may have.
    fn busy(count: usize, ran: &Rc<Cell<usize>>) -> Vec<JoinHandle<()>> {
        let stranger = || {
            let ran = ran.clone();
            actix_web::rt::spawn(Paced::new(Who::from(place(1)), move || async move {
                PACE.with(|pace| pace.used.set(PART_ELSEWHERE));
                ran.set(ran.get() + 1);
            }))
        };
        (0..count).map(|_| stranger()).collect()
    }

    /// Returns how many of these ran before the others all waited.
    async fn until_they_wait(count: usize, ran: &Cell<usize>) -> usize {
        let waiting = |pace: &Pace| -> usize {
            pace.line.borrow().by_place.values().map(VecDeque::len).sum()
        };
        while ran.get() + PACE.with(waiting) < count {
            tokio::task::yield_now().await;
        }
        ran.get()
    }

    /// Thousands of answered strangers kept their buffers until each had its turn again.
    #[actix_web::test]
    async fn who_only_has_to_end_does_not_wait_for_a_turn() {
        let [strangers, _] = Crowd::all(&Limits::default(), &Arc::new(Complaints::new()));
        let ran = Rc::new(Cell::new(0));
        let others = busy(200, &ran);
        let before = until_they_wait(200, &ran).await;
        let who = Who::from(place(1));
        let stranger = Stranger::enter(&strangers, None, || {}).expect("there is room");
        let stranger = Arc::new(stranger);
        who.is(&stranger);
        stranger.is_to_end();
        Paced::new(who, || async {}).await;
        assert_eq!(ran.get(), before);
        for other in others {
            other.await.expect("it ran");
        }
    }

    /// Until it is accepted it runs several times, and at each of them others of the crowd went first.
    #[actix_web::test]
    async fn who_comes_from_elsewhere_does_not_wait_for_a_crowd() {
        let ran = Rc::new(Cell::new(0));
        let others = busy(200, &ran);
        let before = until_they_wait(200, &ran).await;
        PACE.with(|pace| pace.used.set(PART));
        Paced::new(Who::from(place(2)), || async {}).await;
        assert_eq!(ran.get(), before);
        // Nor do they do so without end.
        PACE.with(|pace| pace.used.set(PART_ELSEWHERE));
        Paced::new(Who::from(place(3)), || async {}).await;
        assert!(ran.get() > before);
        for other in others {
            other.await.expect("it ran");
        }
    }

    /// 8,000 that had not begun took 28 MiB.
    #[actix_web::test]
    async fn a_connection_is_made_at_its_first_turn() {
        let (ran, begun) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let others = busy(200, &ran);
        until_they_wait(200, &ran).await;
        let begin = || {
            begun.set(true);
            async {}
        };
        let mut last = pin!(Paced::new(Who::from(place(1)), begin));
        assert!(futures_util::poll!(&mut last).is_pending() && !begun.get());
        last.await;
        assert!(begun.get());
        for other in others {
            other.await.expect("it ran");
        }
    }

    /// Thousands of busy strangers and one accepted connection, on one thread.
    #[actix_web::test]
    async fn who_was_accepted_goes_before_strangers_who_wait() {
        const STRANGERS: usize = 200;
        let ran = Rc::new(Cell::new(0));
        let strangers = busy(STRANGERS, &ran);
        let mut turns = 0;
        while ran.get() < STRANGERS {
            // As a task does when its socket has become ready.
            tokio::task::yield_now().await;
            turns += 1;
        }
        assert!(turns >= STRANGERS - 1, "all of them ran within {turns} turns");
        for stranger in strangers {
            stranger.await.expect("it ran");
        }
    }
}
