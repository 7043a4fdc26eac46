//! Operations about the registrars of the node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use trunkline::registrar::{ResolveError, Resolver, Watch};
use trunkline::{
    AnnounceError, AnyOf, Cause, Chain, NameError, Offer, ResolverId, Serves, ServiceName, ServiceNameError, Serving,
    Told,
};

use super::{Kind, OpError, Operations, name};
use crate::api::{
    Announce, Announced, Changed, Explanation, RegistrarQuery, RegistrarState, Registrars, ResolveQuery, Resolved,
    ServiceNode, ServiceNodes, ServicesQuery, Step,
};

/// Timeout of one question.
const QUESTION: Duration = Duration::from_secs(2);

fn cannot_list(id: &ResolverId) -> String {
    format!("the registrar {id} does not list its nodes; ask it for one, with `trunkline registrar resolve NAME`")
}

/// Waits for an answer, for as long as a question may take.
async fn within<T>(answer: impl Future<Output = Result<T, ResolveError>>) -> Result<T, ResolveError> {
    let late = |_| ResolveError::Unreachable(format!("it did not answer within {QUESTION:?}").into());
    tokio::time::timeout(QUESTION, answer).await.map_err(late)?
}

impl Operations {
    /// Returns the registrars of the node.
    pub fn registrars(&self) -> Registrars {
        let (status, discovery) = (self.node.status(), self.node.discovery());
        let others = self.node.resolvers().keys().filter(|id| !discovery.contains(id));
        Registrars {
            discovery: discovery.iter().map(|id| self.registrar_state(id)).collect(),
            others: others.map(|id| self.registrar_state(id)).collect(),
            registered: status.registered,
            serves_registrar: status.serves_registrar,
            registrar_queries: status.registrar_queries,
        }
    }

    fn registrar_state(&self, id: &ResolverId) -> RegistrarState {
        let stale = self.node.resolvers().get(id).and_then(|registrar| registrar.stale());
        RegistrarState { id: id.to_string(), stale: stale.map(|cause| Chain(&cause).to_string()) }
    }

    /// Returns the registrars that the steps of an explanation ask, and whose answers may be out of date.
    pub(super) fn stale_registrars(&self, steps: &[Step]) -> Vec<RegistrarState> {
        let is_asked = |id: &&ResolverId| steps.iter().any(|step| step.resolver.as_deref() == Some(id.as_str()));
        let asked = self.node.resolvers().keys().filter(is_asked);
        asked.map(|id| self.registrar_state(id)).filter(|state| state.stale.is_some()).collect()
    }

    /// Returns the registrar of this id, or the node's own.
    fn registrar(&self, asked: Option<&str>) -> Result<(&ResolverId, &Arc<dyn Resolver>), OpError> {
        let resolvers = self.node.resolvers();
        let known = || match resolvers.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => {
                "the node has no registrar; set `node.registrar` or add one under `registrars:`".into()
            }
            known => format!("known: {known}"),
        };
        let id = match asked {
            Some(asked) => resolvers.keys().find(|id| id.as_str() == asked),
            None => self.node.discovery().last(),
        };
        match (id.and_then(|id| resolvers.get_key_value(id)), asked) {
            (Some(found), _) => Ok(found),
            (None, Some(asked)) => {
                Err(OpError::new(Kind::Bad, format!("there is no registrar {asked:?}; {}", known())))
            }
            (None, None) => Err(OpError::new(Kind::Bad, format!("no registrar is asked by itself; {}", known()))),
        }
    }

    /// Returns the nodes that a registrar announces, by name.
    ///
    /// # Errors
    /// [`OpError`] if there is no such registrar, or it does not answer within 2 s or lists no nodes.
    pub async fn announced(&self, query: &RegistrarQuery) -> Result<Vec<Announced>, OpError> {
        let (id, registrar) = self.registrar(query.registrar.as_deref())?;
        let nodes = within(registrar.nodes()).await.map_err(|error| match error {
            ResolveError::NoList => OpError::new(Kind::Bad, cannot_list(id)),
            error => OpError::new(Kind::Unreachable, error),
        });
        Ok(nodes?.iter().map(Announced::from).collect())
    }

    /// Asks registrars for the ways to a name: one of them, or each that is asked without a route.
    ///
    /// # Errors
    /// [`OpError`] if the name is none, or there is no such registrar. That one does not answer is in its part.
    pub async fn resolve(&self, query: &ResolveQuery) -> Result<Vec<Resolved>, OpError> {
        let name = name(&query.name)?;
        let asked = match (query.registrar.as_deref(), self.node.discovery()) {
            (None, discovery) if !discovery.is_empty() => discovery.to_vec(),
            (asked, _) => vec![self.registrar(asked)?.0.clone()],
        };
        let mut answers = Vec::new();
        for id in asked {
            let Some(registrar) = self.node.resolvers().get(&id) else { continue };
            let endpoints = within(registrar.resolve(&name)).await;
            let gateways = within(registrar.gateways(&name)).await;
            let error = endpoints.as_ref().err().or(gateways.as_ref().err()).map(|error| Chain(error).to_string());
            answers.push(Resolved {
                stale: self.registrar_state(&id).stale,
                registrar: id.to_string(),
                endpoints: endpoints.unwrap_or_default().iter().map(Into::into).collect(),
                gateways: gateways.unwrap_or_default().iter().map(ToString::to_string).collect(),
                error,
            });
        }
        Ok(answers)
    }

    /// Returns a reader of the nodes of a registrar and of each change.
    ///
    /// # Errors
    /// [`OpError`] if there is no such registrar, or it does not tell changes.
    pub fn watch_registrar(&self, query: &RegistrarQuery) -> Result<Watch, OpError> {
        let (id, registrar) = self.registrar(query.registrar.as_deref())?;
        registrar.watch().ok_or_else(|| OpError::new(Kind::Bad, cannot_list(id)))
    }

    /// Returns the nodes that serve a service, or those of all services that are known, by service.
    ///
    /// # Errors
    /// [`OpError`] if the text is no service.
    pub async fn services(&self, query: &ServicesQuery) -> Result<Vec<ServiceNodes>, OpError> {
        let asked = match &query.service {
            Some(text) => {
                let text = if text.starts_with('@') { text.clone() } else { format!("@{text}") };
                vec![text.parse().map_err(|error: NameError| OpError::new(Kind::Bad, error))?]
            }
            None => self.known_services().await.into_iter().map(AnyOf::from).collect(),
        };
        let mut services = Vec::new();
        for any in asked {
            services.push(self.service_nodes(&any).await);
        }
        Ok(services)
    }

    /// Returns the services that the node serves, lists by hand, or finds at registrars that list their nodes.
    async fn known_services(&self) -> BTreeSet<ServiceName> {
        let mut known: BTreeSet<ServiceName> = self.node.offers().into_iter().map(|offer| offer.service).collect();
        known.extend(self.node.service_nodes().into_keys());
        for id in self.node.discovery() {
            let Some(registrar) = self.node.resolvers().get(id) else { continue };
            let nodes = within(registrar.nodes()).await.unwrap_or_default();
            known.extend(nodes.into_iter().flat_map(|node| node.offers).map(|offer| offer.service));
        }
        known
    }

    async fn service_nodes(&self, any: &AnyOf) -> ServiceNodes {
        let Serves { nodes, unanswered } = self.node.serving(any).await;
        let node = |(serving, open): (Serving, usize)| ServiceNode {
            connected: self.node.connection(&serving.node).is_some(),
            node: serving.node.to_string(),
            weight: serving.weight,
            tags: serving.tags,
            open,
        };
        let state = |(id, cause): (ResolverId, Cause)| RegistrarState {
            id: id.to_string(),
            stale: Some(Chain(&cause).to_string()),
        };
        ServiceNodes {
            service: any.to_string(),
            nodes: nodes.into_iter().map(node).collect(),
            unanswered: unanswered.into_iter().map(state).collect(),
        }
    }

    /// Explains a service: its nodes in the order to try.
    pub(super) async fn explain_service(&self, any: &AnyOf) -> Explanation {
        let stale = self.node.discovery().iter().map(|id| self.registrar_state(id));
        Explanation {
            name: any.to_string(),
            live: None,
            steps: Vec::new(),
            static_only: self.node.discovery().is_empty(),
            failback: Vec::new(),
            stale: stale.filter(|state| state.stale.is_some()).collect(),
            member: None,
            service: Some(self.service_nodes(any).await),
        }
    }

    /// Serves a service with other nodes from now on, drains this node of it, or withdraws it.
    ///
    /// # Errors
    /// [`OpError`] if the service or a tag is none, the node does not serve what it is to withdraw, or the registrar refuses;
    /// nothing changed.
    pub async fn announce_service(&self, request: &Announce) -> Result<Changed, OpError> {
        let bad = |error: ServiceNameError| OpError::new(Kind::Bad, error);
        let refused = |error: AnnounceError| match error {
            AnnounceError::Offer(error) => OpError::new(Kind::Bad, error),
            error => OpError::new(Kind::Conflict, error),
        };
        let service: ServiceName = request.service.trim_start_matches('@').parse().map_err(bad)?;
        let known = self.node.offers().into_iter().find(|offer| offer.service == service);
        let later = |told: Told| match told {
            Told::Later => "; the registrar is lost, and is told once it is back: until then it says what it knew",
            Told::Nobody => "; no registrar is told, since the node is not announced",
            _ => "",
        };
        let Some(weight) = request.weight else {
            return match self.node.withdraw_offer(&service).await.map_err(refused)? {
                Some(told) => Ok(Changed::new(format!("{service} is not announced any more{}", later(told)))),
                None => Err(OpError::new(Kind::Bad, format!("this node does not announce {service}"))),
            };
        };
        let tags = request.tags.clone().or(known.map(|offer| offer.tags)).unwrap_or_default();
        let told = self.node.offer(Offer { service: service.clone(), weight, tags }).await.map_err(refused)?;
        let note = match (weight, later(told)) {
            (0, "") => "; this node is drained: no new use comes, and those that are open stay",
            (_, note) => note,
        };
        Ok(Changed::new(format!("{service} is announced with the weight {weight}{note}")))
    }
}
