//! Entity data of a server: what a fence is judged with, and what becomes of news.

use std::time::{Duration, Instant};

use ringfence_model::{Entities as Declared, EntitiesUrl, Fence};
use ringfence_oidc::protocol::{EntitiesConfig, EntitiesNews};
use ringfence_snapshot::{MAX_POLICY_BYTES, Policies, Text};

use super::enforce::Offer;
use super::{Core, now};
use crate::ControlError;
use crate::entities::{Kept, Waiting, config};
use crate::nodes::cut;
use crate::policies::judged;
use crate::supervisor::FromControl;

/// How long a fence waits for the first data of its server.
const PATIENCE: Duration = Duration::from_secs(15);

/// The server of a fence's entity data.
pub(super) fn server(fence: &Fence) -> Option<&EntitiesUrl> {
    match &fence.entities {
        Some(Declared::Url(server)) => Some(server),
        Some(Declared::File(_)) | None => None,
    }
}

impl Core {
    /// A fence with the data that it is judged with, and the server to be asked from then on. None: it waits for the first data.
    pub(super) async fn with_data(
        &mut self,
        mut offer: Offer,
    ) -> Result<Option<(Offer, Option<EntitiesConfig>)>, ControlError> {
        // Whatever waited is superseded.
        self.entities.waiting = None;
        // What is wrong with the fence is told by whoever judges it.
        let Ok(fence) = Fence::parse(offer.files.clone()) else { return Ok(Some((offer, None))) };
        let (Some(server), Ok(Some(policies))) = (server(&fence), &mut offer.policies) else {
            return Ok(Some((offer, None)));
        };
        let ca = offer.beside.as_ref().ok().and_then(|beside| beside.entities.clone());
        let config = config(server, ca);
        if !self.entities.loaded {
            self.entities.kept = self.state.entities().await?;
            self.entities.loaded = true;
        }
        if let Some(kept) = self.entities.of(&config.url) {
            policies.entities = Some(Text { name: kept.url.clone(), text: kept.text.clone() });
            return Ok(Some((offer, Some(config))));
        }
        self.entity(
            "entities",
            &cut(&config.url),
            2,
            true,
            "asked for the first time; the fence waits for it",
        );
        self.federation.ask_for_entities(Some(config.clone()));
        self.federation.remind_of_entities(config.url.clone(), PATIENCE);
        self.entities.waiting = Some(Waiting { offer, config, since: Instant::now(), trouble: None });
        Ok(None)
    }

    /// What came of asking a server.
    pub(crate) async fn asked_for_data(
        &mut self,
        url: String,
        news: EntitiesNews,
    ) -> Result<(), ControlError> {
        let waits = self.entities.waiting.as_ref().is_some_and(|waiting| waiting.config.url == url);
        let in_force = self.fence.as_ref().and_then(server).is_some_and(|server| server.url == url);
        match news {
            EntitiesNews::Data(text) if text.len() > MAX_POLICY_BYTES => Ok(()),
            EntitiesNews::Data(text) if waits => self.first_data(url, text).await,
            EntitiesNews::Data(text) if in_force => self.other_data(url, text).await,
            EntitiesNews::Same if in_force => {
                if self.entities.confirm() {
                    self.entity("entities", &cut(&url), 3, true, "its server answers again as it should");
                }
                Ok(())
            }
            EntitiesNews::Trouble(reason) if waits => self.no_first_data(&reason).await,
            EntitiesNews::Trouble(reason) if in_force => {
                if self.entities.silent(&reason) {
                    let message = format!("the data of before stays: {reason}");
                    self.entity("entities", &cut(&url), 3, false, &cut(&message));
                }
                Ok(())
            }
            // Of a server that is not asked any more.
            EntitiesNews::Data(_) | EntitiesNews::Same | EntitiesNews::Trouble(_) => Ok(()),
        }
    }

    /// The fence that waited for it is judged.
    async fn first_data(&mut self, url: String, text: String) -> Result<(), ControlError> {
        let Some(Waiting { mut offer, config, .. }) = self.entities.waiting.take() else { return Ok(()) };
        if let Ok(Some(policies)) = &mut offer.policies {
            policies.entities = Some(Text { name: url.clone(), text: text.clone() });
        }
        let taken = self.answer_offer(offer, Some(config)).await?;
        if taken { self.keep_data(url, text).await } else { Ok(()) }
    }

    /// The fence that waited for it is refused, once it has waited long enough.
    async fn no_first_data(&mut self, reason: &str) -> Result<(), ControlError> {
        let too_long = |waiting: &mut Waiting| waiting.since.elapsed() >= PATIENCE;
        let Some(waiting) = self.entities.waiting.take_if(too_long) else {
            if let Some(waiting) = &mut self.entities.waiting {
                waiting.trouble = Some(reason.to_owned());
            }
            return Ok(());
        };
        // What a try came to says more than that time is over.
        let reason = waiting.trouble.as_deref().unwrap_or(reason);
        let reason =
            format!("{}: no entity data, and none of before: {}", cut(&waiting.config.url), cut(reason));
        self.entity("fence", "refused", 3, false, &reason);
        // The server of the fence in force is asked again.
        self.federation.ask_for_entities(self.server.clone());
        Ok(self.supervisor.send(&FromControl::Fence(Err(reason)), &[]).await?)
    }

    /// The fence in force is judged anew with other data; what does not fit changes nothing.
    async fn other_data(&mut self, url: String, text: String) -> Result<(), ControlError> {
        if self.entities.of(&url).is_some_and(|kept| kept.text == text) {
            if self.entities.confirm() {
                self.entity("entities", &cut(&url), 3, true, "its server answers again as it should");
            }
            return Ok(());
        }
        let (Some(fence), Some(policies)) = (self.fence.take(), self.policies.clone()) else { return Ok(()) };
        let data = Text { name: url.clone(), text: text.clone() };
        let outcome = match judged(&fence, Ok(Some(Policies { entities: Some(data), ..policies }))) {
            Ok(policies) => match self.put_in_force(&fence, policies.as_ref()).await {
                Ok(_) => Ok(policies),
                Err(e) => Err(e.to_string()),
            },
            Err(reason) => Err(reason),
        };
        self.fence = Some(fence);
        match outcome {
            Ok(policies) => {
                self.policies = policies;
                self.keep_data(url, text).await
            }
            Err(reason) => {
                let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
                self.entities.refuse(&cut(&reason));
                let message = format!("the data of before stays: {reason}");
                self.entity("entities", &cut(&url), 3, false, &cut(&message));
                Ok(())
            }
        }
    }

    async fn keep_data(&mut self, url: String, text: String) -> Result<(), ControlError> {
        let kept = Kept { url, text, fetched: now() };
        self.state.store_entities(&kept).await?;
        let message = format!("{} bytes of data are in force", kept.text.len());
        self.entity("entities", &cut(&kept.url), 3, true, &message);
        self.entities.keep(kept);
        Ok(())
    }
}
