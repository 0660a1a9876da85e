//! The page as it changes, for all who look at it.
//!
//! One scene is taken for everybody, once a second and when something happens
//! to a server; what has changed since the one before is written down once,
//! and every viewer is sent the same bytes. A viewer is a number: the scene
//! that it shows. One that falls behind is sent the whole scene, so it never
//! makes anything wait or grow. While nobody looks, nothing is done.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    page::{self, Scene},
    source::Source,
    stream::{Course, Follower, Stream},
};
use crate::desk::{
    http::Visit,
    seats::{Seat, Seats},
};

/// Viewers at a time, half of them from one address: a room full of them, and
/// the statistics keep most of their connections for others.
pub(super) const MOST_VIEWERS: usize = 64;

/// Time from one scene to the next: rates are those of a second.
const TICK: Duration = Duration::from_secs(1);

/// The least time between two scenes that events ask for: a cluster that
/// starts is shown as it comes, not server by server.
const LEAST: Duration = Duration::from_millis(100);

/// How long a scene is good for another page: a browser that loads pages as
/// fast as it can costs five scenes a second.
const FRESH: Duration = Duration::from_millis(200);

/// Differences that are kept for viewers who are a moment late.
const KEPT: usize = 8;

/// How long a scene is kept that nobody looks at: until the browser that has
/// just loaded it asks for what comes next.
const IDLE: Duration = Duration::from_secs(10);

/// The page as it changes.
pub(super) struct Live {
    source: Arc<Source>,
    seats: Arc<Seats>,
    latest: watch::Sender<u64>,
    ending: CancellationToken,
    /// Used on the thread that serves no requests, by one at a time.
    reel: Mutex<Reel>,
}

/// The latest scene, and how one gets there.
#[derive(Default)]
struct Reel {
    /// The number of the latest scene.
    number: u64,
    scene: Option<(Arc<Scene>, Instant)>,
    /// What leads from the scene before to that of the number.
    steps: VecDeque<(u64, Bytes)>,
    /// The scene of that number as a whole.
    whole: Option<(u64, Bytes)>,
}

impl Live {
    /// The page of `source`, until `ending`.
    pub(super) fn new(source: Arc<Source>, ending: CancellationToken) -> Self {
        Self {
            source,
            seats: Seats::new(MOST_VIEWERS),
            latest: watch::Sender::new(0),
            ending,
            reel: Mutex::default(),
        }
    }

    /// Takes scenes for as long as somebody looks.
    pub(super) async fn run(&self) {
        let mut seconds = interval(TICK);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = self.source.pool.timeline().follow();
        loop {
            tokio::select! {
                () = self.ending.cancelled() => return,
                _ = seconds.tick() => {}
                Ok(()) = events.changed() => sleep(LEAST).await,
            }
            if self.seats.is_empty() {
                self.reel().forget();
            } else {
                self.take(Duration::ZERO);
            }
        }
    }

    /// The page as it is now, with the name of the scene that it shows.
    pub(super) fn look(&self) -> (Arc<Scene>, String) {
        let (scene, number) = self.take(FRESH);
        (scene, self.name(number))
    }

    /// Begins to follow after the scene of that name; `None` if every seat is
    /// taken.
    pub(super) fn begin(
        self: &Arc<Self>,
        shown: Option<&str>,
        visit: &Visit,
    ) -> Option<Stream<Shown>> {
        let seat = self.seats.take(&visit.place)?;
        self.take(FRESH);
        let scene = shown.and_then(|name| self.number(name));
        Some(self.viewer(scene, visit, seat).into())
    }

    fn viewer(self: &Arc<Self>, scene: Option<u64>, visit: &Visit, seat: Seat) -> Follower<Shown> {
        let live = Arc::clone(self);
        Follower {
            course: Shown { live, scene },
            news: self.latest.subscribe(),
            lease: visit.lease.clone(),
            ending: self.ending.clone(),
            _seat: seat,
        }
    }

    /// The latest scene, or a new one if that is older than `age` or the pool
    /// has changed since.
    fn take(&self, age: Duration) -> (Arc<Scene>, u64) {
        let now = Instant::now();
        let mut reel = self.reel();
        let generation = self.source.pool.load().generation;
        if let Some((scene, at)) = &reel.scene
            && scene.generation == generation
            && now - *at < age
        {
            return (Arc::clone(scene), reel.number);
        }
        let before = reel.scene.take().map(|(scene, _)| scene);
        let scene = Arc::new(Scene::take(&self.source, before.as_deref(), now));
        reel.number += 1;
        let number = reel.number;
        if let Some(before) = before {
            let step = self.message(number, &page::difference(&before, &scene));
            if reel.steps.len() == KEPT {
                reel.steps.pop_front();
            }
            reel.steps.push_back((number, step));
        }
        reel.scene = Some((Arc::clone(&scene), now));
        drop(reel);
        // After the scene: whoever hears of the number finds it.
        self.latest.send_replace(number);
        (scene, number)
    }

    /// What leads on from the scene that a viewer shows, and where to.
    fn after(&self, shown: Option<u64>) -> Option<(Bytes, u64)> {
        let mut reel = self.reel();
        let number = reel.number;
        if shown == Some(number) {
            return None;
        }
        let next = shown.map(|shown| shown + 1);
        if let Some((to, step)) = reel.steps.iter().find(|(to, _)| Some(*to) == next) {
            return Some((step.clone(), *to));
        }
        if let Some((of, whole)) = &reel.whole
            && *of == number
        {
            return Some((whole.clone(), number));
        }
        let (scene, _) = reel.scene.as_ref()?;
        let whole = self.message(number, &page::whole(scene));
        reel.whole = Some((number, whole.clone()));
        Some((whole, number))
    }

    fn message(&self, number: u64, data: &str) -> Bytes {
        format!("id: {}\ndata: {data}\n\n", self.name(number)).into()
    }

    /// A scene's name, which no other process has for one of its own.
    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.process())
    }

    /// The number of the scene of that name, if it was one of this process.
    fn number(&self, name: &str) -> Option<u64> {
        let (process, number) = name.rsplit_once('-')?;
        let number = number.parse().ok()?;
        (process == self.process()).then_some(number)
    }

    fn process(&self) -> String {
        let process = &self.source.process;
        format!("{}.{}.{}", *page::BUILD, process.started_unix, process.pid)
    }

    fn reel(&self) -> MutexGuard<'_, Reel> {
        // Whoever panicked has left at worst no scene, which is then taken.
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reel {
    /// Lets go of what nobody looks at any more.
    fn forget(&mut self) {
        let is_old = |(_, at): &(_, Instant)| at.elapsed() > IDLE;
        if self.scene.as_ref().is_some_and(is_old) {
            *self = Self {
                number: self.number,
                ..Self::default()
            };
        }
    }
}

/// The page, as one viewer shows it.
pub(super) struct Shown {
    live: Arc<Live>,
    /// The number of the scene that it shows.
    scene: Option<u64>,
}

impl Course for Shown {
    fn piece(&mut self) -> Option<Bytes> {
        let (piece, number) = self.live.after(self.scene)?;
        self.scene = Some(number);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{desk::places::Places, membership::Phase, stats::fixture};

    fn live(source: &Arc<Source>) -> Arc<Live> {
        let ending = CancellationToken::new();
        Arc::new(Live::new(Arc::clone(source), ending))
    }

    fn text(piece: Option<(Bytes, u64)>) -> String {
        String::from_utf8(piece.unwrap().0.into()).unwrap()
    }

    /// A connection from that address.
    async fn visit(from: &str) -> Visit {
        let from = from.parse().unwrap();
        Visit::new(Places::new(1).admit(Some(from)).await)
    }

    /// A viewer of the scene of that name.
    async fn viewer(live: &Arc<Live>, scene: Option<u64>) -> Follower<Shown> {
        let visit = visit("10.0.0.1").await;
        let seat = live.seats.take(&visit.place).unwrap();
        live.viewer(scene, &visit, seat)
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_share_what_leads_from_one_scene_to_the_next() {
        let live = live(&fixture::source());
        let (_, first) = live.take(TICK);
        live.source.totals.frontend.connections.inc();
        let (_, second) = live.take(Duration::ZERO);
        let step = live.after(Some(first)).unwrap().0;
        assert_eq!(step.as_ptr(), live.after(Some(first)).unwrap().0.as_ptr());
        let step = String::from_utf8(step.into()).unwrap();
        let id = format!("id: {}\ndata: {{\"now\":", live.name(second));
        assert!(step.starts_with(&id) && step.ends_with("}\n\n"), "{step}");
        assert!(step.contains("connections") && !step.contains("nodes/s1"));
        assert_eq!(live.after(Some(second)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_falls_behind_is_sent_the_whole_scene_and_then_goes_on() {
        let live = live(&fixture::source());
        let (_, first) = live.take(TICK);
        for _ in 0..=KEPT {
            live.take(Duration::ZERO);
        }
        assert_eq!(live.reel().steps.len(), KEPT);
        let (_, latest) = live.take(TICK);
        for shown in [None, Some(first), Some(latest + 7)] {
            let (_, number) = live.after(shown).unwrap();
            assert_eq!(number, latest);
            assert!(text(live.after(shown)).contains("\"order\":[\"nodes/s1\""));
        }
        assert_eq!(live.after(Some(latest)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scene_is_taken_once_a_second_for_all_and_none_for_nobody() {
        let live = live(&fixture::source());
        let running = Arc::clone(&live);
        tokio::spawn(async move { running.run().await });
        live.look();
        let number = || live.reel().number;
        sleep(TICK * 20).await;
        assert_eq!(number(), 1);
        assert!(live.reel().scene.is_none(), "nobody looks");
        let viewers = [viewer(&live, None).await, viewer(&live, None).await];
        sleep(TICK * 20).await;
        assert!((19..=22).contains(&number()), "{}", number());
        drop(viewers);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_joins_is_shown_at_once() {
        let (source, inputs) = fixture::live();
        let live = live(&source);
        let running = Arc::clone(&live);
        tokio::spawn(async move { running.run().await });
        let (_, shown) = live.take(TICK);
        let viewer = viewer(&live, Some(shown)).await;
        sleep(TICK / 10).await;
        let joins = fixture::announced("s1", Phase::Ready);
        inputs.send(joins).await.unwrap();
        let seen = async {
            let mut viewer = viewer;
            loop {
                let (piece, next) = viewer.next().await.unwrap();
                if String::from_utf8_lossy(&piece).contains("nodes/s1") {
                    return;
                }
                viewer = next;
            }
        };
        timeout(LEAST * 3, seen).await.unwrap();
    }

    #[tokio::test]
    async fn viewers_are_bounded_and_a_place_that_is_left_is_free() {
        let live = live(&fixture::source());
        let mut viewers = Vec::new();
        for from in ["10.0.0.1", "10.0.0.2"] {
            let visit = visit(from).await;
            for _ in 0..MOST_VIEWERS / 2 {
                viewers.push(live.begin(None, &visit).unwrap());
            }
            assert!(live.begin(None, &visit).is_none(), "half for one address");
        }
        let one_more = visit("10.0.0.3").await;
        assert!(live.begin(None, &one_more).is_none());
        viewers.pop();
        assert!(live.begin(None, &one_more).is_some());
    }

    #[tokio::test]
    async fn a_scene_of_another_process_is_not_gone_on_from() {
        let live = live(&fixture::source());
        let (_, name) = live.look();
        assert_eq!(live.number(&name), Some(1));
        assert_eq!(live.number(&format!("x{name}")), None);
        assert_eq!(live.number("1"), None);
    }
}
