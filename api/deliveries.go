package api

import (
	"context"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
)

// ListDeliveries tells each delivery's story.
func (n nouns) ListDeliveries(ctx context.Context, r contract.ListDeliveriesRequestObject) (contract.ListDeliveriesResponseObject, error) {
	id, err := messageID(r.MessageId)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	var after ident.Device
	if r.Params.After != nil {
		if after, err = ident.ParseDevice(*r.Params.After); err != nil {
			return nil, badCursor()
		}
	}
	list, more, err := n.deps.Deliveries.Deliveries(ctx, callerOf(ctx).app, id, after, limit)
	if err != nil {
		return nil, err
	}
	answer := contract.ListDeliveries200JSONResponse{Deliveries: []contract.Delivery{}, Cursor: r.Params.After, More: more}
	for _, d := range list {
		answer.Deliveries = append(answer.Deliveries, wireDelivery(d))
		answer.Cursor = some(d.Device)
	}
	return answer, nil
}

func wireDelivery(d messages.Delivery) contract.Delivery {
	wire := contract.Delivery{DeviceId: string(d.Device), State: string(d.State), Timeline: []contract.Moment{}}
	for _, m := range d.Timeline {
		moment := contract.Moment{At: stamp(m.At), Event: m.Event, Provider: some(m.Provider), Verdict: some(m.Verdict), Reason: some(m.Reason)}
		if m.Provider != "" {
			took := m.Took.Milliseconds()
			moment.DurationMs = &took
		}
		wire.Timeline = append(wire.Timeline, moment)
	}
	if d.NotWoken != nil {
		wire.NotWoken = &contract.NotWoken{Code: d.NotWoken.Code, Detail: d.NotWoken.Detail}
	}
	return wire
}
