//! Whose unfinished input may grow: one limit on what all connections together have sent of incomplete messages.
//!
//! ```text
//!   0 ................ share of strangers ........ 3/4 open ........ open ............................. open + one connection's most
//!   | small input: read from, of strangers also beyond it             |  one connection at a time: whose turn it is
//!   | large input of strangers |                                     |
//!   | large input of accepted connections          |                 |
//! ```
//!
//! Half a message is useless, so if the server just stopped reading at a limit, halves alone could reach it and nobody
//! would ever finish. So space for the most that one connection may hold is reserved for the holder of the *turn*: of
//! those that wait, the accepted connection whose input is oldest; if there is none, or now and then, a stranger, from
//! another address each time ([`lines`]). A turn ends when what was read with it is complete and gone, or when its holder
//! is overdue.
//!
//! Keeps: what is held never exceeds `open` plus one connection's maximum, apart from what is read at once and the
//! small input of strangers, whose number is bounded; strangers never keep an accepted connection from sending small
//! input; everyone who waits gets a turn; time in which the server did not read from a connection does not make it
//! overdue. Leaves out: the clock (`now` is passed in, in milliseconds), wakers, and ending overdue connections
//! (`actors::budget`); how many strangers there are (`strangers`).

use std::collections::{BTreeSet, HashMap};

use self::lines::{Lines, Position};
use super::strangers::Place;

mod lines;

/// Identifies a connection here.
pub(crate) type Number = u64;

/// How long a stranger that has the turn has to finish while accepted connections wait, in milliseconds.
const TURN_MILLIS_MAX: u64 = 5_000;
/// How long a stranger that has the turn may be silent while anybody waits, in milliseconds.
const TURN_SILENT_MILLIS_MAX: u64 = 2_000;
/// If accepted connections always wait, one turn after this many goes to a stranger.
const TURNS_BEFORE_STRANGERS: u32 = 8;
/// A turn that is not used for this long passes to the next.
const TURN_UNUSED_MILLIS_MAX: u64 = 1_000;
/// While others wait, large input has to arrive this many times as fast as the minimum.
const BUSY_FACTOR: u64 = 64;
/// The same for strangers.
const BUSY_STRANGER_FACTOR: u64 = 512;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Bytes that all may hold together, not counting the holder of the turn.
    pub(crate) open: usize,
    /// Strangers with large input are read from while all strangers hold less than this.
    pub(crate) open_to_strangers: usize,
    /// Bytes a second that a connection has to send of what it has begun.
    pub(crate) rate_min: u64,
    /// The period over which that is checked, in milliseconds.
    pub(crate) grace_millis: u64,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It sent less than it has to.
    Slow,
    /// It is a stranger, had its turn, and others wait.
    Turn,
}

/// What a connection reports after it was read from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// How many bytes it holds now.
    pub(crate) bytes: usize,
    /// How many bytes arrived since the last report.
    pub(crate) received: usize,
    /// The socket has no more: the rest depends on the client.
    pub(crate) waits_for_client: bool,
}

#[derive(Debug, Default)]
struct Member {
    stranger: bool,
    /// Input up to this many bytes is small.
    small: usize,
    held: usize,
    /// When the input that it holds began.
    since: u64,
    window: Window,
    place: Place,
    /// Its position among those that wait.
    waits: Option<Position>,
}

/// How fast a connection sends, over some time.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: u64,
    bytes: u64,
    /// Time that passed while the server waited for the client.
    client_millis: u64,
    /// Since when the server has been waiting for it.
    client_since: Option<u64>,
}

#[derive(Debug)]
struct Turn {
    number: Number,
    since: u64,
    used: bool,
}

/// All connections that may hold unfinished input.
#[derive(Debug)]
pub(crate) struct Intake {
    terms: Terms,
    next: Number,
    members: HashMap<Number, Member>,
    level: usize,
    level_of_strangers: usize,
    /// By age.
    waiting: BTreeSet<(u64, Number)>,
    waiting_strangers: Lines,
    /// Since when anybody has been waiting.
    busy_since: Option<u64>,
    turn: Option<Turn>,
    /// How many accepted connections go before the next stranger.
    turns_before_strangers: u32,
    /// The connections that can be read from again.
    wake: Vec<Number>,
}

impl Intake {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            next: 0,
            members: HashMap::new(),
            level: 0,
            level_of_strangers: 0,
            waiting: BTreeSet::new(),
            waiting_strangers: Lines::default(),
            busy_since: None,
            turn: None,
            turns_before_strangers: TURNS_BEFORE_STRANGERS,
            wake: Vec::new(),
        }
    }

    /// Other limits count from now on; whoever has space by them has to be woken.
    pub(crate) fn set(&mut self, terms: Terms, now: u64) {
        self.terms = terms;
        self.pass_on(now);
    }

    /// Adds a stranger from this address, which holds nothing yet.
    pub(crate) fn enter(&mut self, small: usize, place: Place) -> Number {
        let number = self.next;
        self.next += 1;
        let member = Member { stranger: true, small, place, ..Member::default() };
        self.members.insert(number, member);
        number
    }

    pub(crate) fn leave(&mut self, number: Number, now: u64) {
        self.take_held(number, now, 0);
        self.end_waiting(number);
        self.members.remove(&number);
        self.pass_on(now);
    }

    /// The connection is no longer a stranger; from here on, this counts as small.
    pub(crate) fn accept(&mut self, number: Number, now: u64, small: usize) {
        self.end_waiting(number);
        let Some(member) = self.members.get_mut(&number) else { return };
        if std::mem::take(&mut member.stranger) {
            self.level_of_strangers -= member.held;
        }
        member.small = small;
        self.pass_on(now);
    }

    /// Records what a connection holds.
    pub(crate) fn hold(&mut self, number: Number, now: u64, held: Held) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let window = &mut member.window;
        if member.held == 0 {
            *window = Window { began: now, ..Window::default() };
        }
        window.bytes += held.received as u64;
        window.look_away(now);
        window.client_since = held.waits_for_client.then_some(now);
        self.take_held(number, now, held.bytes);
    }

    /// Whether the connection may be read from. If not, it waits, and appears in [`Intake::take_wake`] when it may.
    pub(crate) fn may_read(&mut self, number: Number, now: u64) -> bool {
        let Some(member) = self.members.get_mut(&number) else { return true };
        member.window.look_away(now);
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.number == number) {
            turn.used = true;
            return true;
        }
        if self.has_room(number) && !self.is_behind(number) {
            if self.end_waiting(number) {
                // Those that wait behind it may find space as well.
                self.pass_on(now);
            }
            return true;
        }
        self.begin_waiting(number, now);
        self.pass_on(now);
        match &mut self.turn {
            Some(turn) if turn.number == number => {
                turn.used = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Returns the overdue connections; those that can be read from meanwhile have to be woken.
    pub(crate) fn round(&mut self, now: u64) -> Vec<(Number, Overdue)> {
        self.pass_unused_turn(now);
        let mut overdue = Vec::new();
        if let Some(turn) = &self.turn {
            let holder = self.members.get(&turn.number).filter(|holder| holder.stranger);
            if let Some(silent_since) = holder.and_then(|holder| holder.window.client_since) {
                let is_long = now.saturating_sub(turn.since) >= TURN_MILLIS_MAX;
                let silent_since = silent_since.max(turn.since);
                let is_silent = now.saturating_sub(silent_since) >= TURN_SILENT_MILLIS_MAX;
                if is_long && !self.waiting.is_empty() || is_silent && self.waiting() > 0 {
                    overdue.push((turn.number, Overdue::Turn));
                }
            }
        }
        let (terms, busy_since) = (self.terms, self.busy_since);
        for (number, member) in self.members.iter_mut().filter(|(_, member)| member.held > 0) {
            let rate_min = terms.rate_min * member.factor(busy_since);
            if member.window.is_slow(now, terms.grace_millis, rate_min) {
                overdue.push((*number, Overdue::Slow));
            }
        }
        let waiting = self.waiting.iter().map(|(_, number)| *number);
        let waiting = waiting.chain(self.waiting_strangers.iter());
        let free: Vec<_> = waiting.filter(|number| self.has_room(*number)).collect();
        self.wake.extend(free);
        overdue
    }

    /// The connections that have become readable since the last call.
    pub(crate) fn take_wake(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.wake)
    }

    /// Adds the connection to those to wake.
    pub(crate) fn wake(&mut self, number: Number) {
        self.wake.push(number);
    }

    /// What all of them hold together.
    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// How many wait until they may be read from.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() + self.waiting_strangers.len()
    }

    /// What accepted connections hold together, except the holder of the turn, whose space is reserved.
    pub(crate) fn open_level_of_accepted(&self) -> usize {
        let of_holder = self.holder().filter(|holder| !holder.stranger).map_or(0, |it| it.held);
        self.level - self.level_of_strangers - of_holder
    }

    fn open_level(&self) -> usize {
        self.level - self.holder().map_or(0, |holder| holder.held)
    }

    fn holder(&self) -> Option<&Member> {
        self.turn.as_ref().and_then(|turn| self.members.get(&turn.number))
    }

    /// Whether there is space for more input of this connection, without the turn.
    fn has_room(&self, number: Number) -> bool {
        let Some(member) = self.members.get(&number) else { return false };
        let level = self.open_level();
        let of_holder = self.holder().filter(|holder| holder.stranger).map_or(0, |it| it.held);
        let level_of_strangers = self.level_of_strangers - of_holder;
        match (member.held <= member.small, member.stranger) {
            // Their number is bounded, and nobody else may keep them from saying who they are.
            (true, true) => true,
            // Strangers whose only limit is their number may fill what is open.
            (true, false) => self.open_level_of_accepted() < self.terms.open,
            (false, true) => {
                level_of_strangers < self.terms.open_to_strangers && level < self.terms.open
            }
            (false, false) => level < self.terms.open / 4 * 3,
        }
    }

    /// Whether somebody waits who came earlier and has input of the same kind. Small input passes large input.
    fn is_behind(&self, number: Number) -> bool {
        let Some(member) = self.members.get(&number) else { return false };
        if member.held <= member.small {
            return false;
        }
        if member.stranger {
            let position = member.position(number);
            return self.waiting_strangers.is_behind(member.place, position);
        }
        self.waiting.first().is_some_and(|first| *first < (member.since, number))
    }

    fn begin_waiting(&mut self, number: Number, now: u64) {
        let Some(member) = self.members.get_mut(&number) else { return };
        if member.waits.is_some() {
            return;
        }
        if member.held == 0 {
            member.since = now;
        }
        let position = member.position(number);
        member.waits = Some(position);
        if member.stranger {
            self.waiting_strangers.insert(member.place, position);
        } else {
            self.waiting.insert((member.since, number));
        }
        self.busy_since.get_or_insert(now);
    }

    /// Whether it was waiting.
    fn end_waiting(&mut self, number: Number) -> bool {
        let Some(member) = self.members.get_mut(&number) else { return false };
        let Some(position) = member.waits.take() else { return false };
        if member.stranger {
            self.waiting_strangers.remove(member.place, position);
        } else {
            self.waiting.remove(&(member.since, number));
        }
        if self.waiting() == 0 {
            self.busy_since = None;
        }
        true
    }

    fn take_held(&mut self, number: Number, now: u64, bytes: usize) {
        let Some(member) = self.members.get(&number) else { return };
        let before = member.held;
        // What is left after a complete message counts as new.
        if bytes != before && (before == 0 || bytes < before && bytes <= member.small) {
            self.end_waiting(number);
            self.members.entry(number).and_modify(|member| member.since = now);
        }
        let Some(member) = self.members.get_mut(&number) else { return };
        member.held = bytes;
        self.level = self.level - before + bytes;
        if member.stranger {
            self.level_of_strangers = self.level_of_strangers - before + bytes;
        }
        if bytes < before {
            self.pass_on(now);
        }
    }

    /// Takes the turn from a holder that is done, passes it on, and wakes those that have space again.
    fn pass_on(&mut self, now: u64) {
        if self.turn_is_over() {
            self.turn = None;
        }
        if self.turn.is_none() {
            let first = self.waiting.first().map(|(_, number)| *number);
            let stranger = self.waiting_strangers.next();
            let strangers_turn = first.is_none() || self.turns_before_strangers == 0;
            let next = if strangers_turn { stranger.or(first) } else { first };
            if let Some(number) = next {
                self.turns_before_strangers = if strangers_turn {
                    TURNS_BEFORE_STRANGERS
                } else {
                    self.turns_before_strangers - 1
                };
                self.end_waiting(number);
                let stranger = self.members.get(&number).filter(|member| member.stranger);
                if let Some(place) = stranger.map(|stranger| stranger.place) {
                    self.waiting_strangers.took_turn(place);
                }
                self.turn = Some(Turn { number, since: now, used: false });
                self.wake.push(number);
            }
        }
        let first = self.waiting.first().map(|(_, number)| *number);
        for first in [first, self.waiting_strangers.next()] {
            self.wake.extend(first.filter(|number| self.has_room(*number)));
        }
    }

    /// What the holder has read with its turn has to fit into what is open before the next one may have as much.
    fn turn_is_over(&self) -> bool {
        let Some(turn) = &self.turn else { return false };
        let Some(member) = self.members.get(&turn.number) else { return true };
        let strangers_fit =
            !member.stranger || self.level_of_strangers <= self.terms.open_to_strangers;
        let fits = self.level <= self.terms.open && strangers_fit;
        turn.used && (fits || member.held <= member.small)
    }

    /// A session whose client does not read does not run, and uses no turn.
    fn pass_unused_turn(&mut self, now: u64) {
        let unused = |turn: &mut Turn| {
            !turn.used && now.saturating_sub(turn.since) >= TURN_UNUSED_MILLIS_MAX
        };
        let Some(Turn { number, .. }) = self.turn.take_if(unused) else { return };
        if let Some(member) = self.members.get_mut(&number) {
            member.since = now;
            self.begin_waiting(number, now);
        }
        self.pass_on(now);
    }
}

impl Member {
    const fn position(&self, number: Number) -> Position {
        Position::new(self.held, self.since, number)
    }

    /// How many times the minimum rate it has to keep.
    fn factor(&self, busy_since: Option<u64>) -> u64 {
        // Not for a time in which nobody waited.
        let busy = busy_since.is_some_and(|since| since <= self.window.began);
        match (busy && self.held > self.small, self.stranger) {
            (false, _) => 1,
            (true, false) => BUSY_FACTOR,
            (true, true) => BUSY_STRANGER_FACTOR,
        }
    }
}

impl Window {
    /// The server no longer waits for the client.
    fn look_away(&mut self, now: u64) {
        if let Some(since) = self.client_since.take() {
            self.client_millis += now.saturating_sub(since);
        }
    }

    /// Whether too little has arrived by now. If not, a window that is over is followed by the next.
    fn is_slow(&mut self, now: u64, grace_millis: u64, rate_min: u64) -> bool {
        let since = self.client_since.map_or(0, |since| now.saturating_sub(since));
        let millis = self.client_millis + since;
        if millis < grace_millis {
            return false;
        }
        if self.bytes * 1_000 < rate_min * millis {
            return true;
        }
        let client_since = self.client_since.map(|_| now);
        *self = Self { began: now, client_since, ..Self::default() };
        false
    }
}

#[cfg(test)]
mod tests;
