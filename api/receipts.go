package api

import (
	"context"
	"time"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
)

// ReportReceipts notes what the device's user did with messages.
func (n nouns) ReportReceipts(ctx context.Context, r contract.ReportReceiptsRequestObject) (contract.ReportReceiptsResponseObject, error) {
	device := callerOf(ctx).device
	var list []messages.Report
	for _, report := range r.Body.Receipts {
		// What is no id is an unknown one, and those count nothing.
		if id, err := ident.ParseMessage(report.MessageId); err == nil {
			list = append(list, messages.Report{Message: id, Kind: messages.ReportKind(report.Event), At: or(report.At)})
		}
	}
	if len(list) == 0 {
		return contract.ReportReceipts200JSONResponse{}, nil
	}
	recorded, err := n.deps.Reports.Report(ctx, device.ID, list, time.Now())
	if err != nil {
		return nil, err
	}
	if recorded > 0 {
		n.hint(messages.Hint{Kind: messages.HintEvents, App: device.App})
	}
	return contract.ReportReceipts200JSONResponse{Recorded: recorded}, nil
}
