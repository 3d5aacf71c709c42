package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

func (a *app) resourcesCommand() *cli.Command {
	list := listing[queue.ResourcesUpdate, *queue.ResourcesUpdate]{
		columns: []string{"RESOURCES", "VERSION", "CREATED", "UPDATED", "NAMES"},
		row: func(u queue.ResourcesUpdate) []string {
			var names []string
			for key := range u.Resources.Members() {
				names = append(names, rawjson.Unescape(key))
			}
			return []string{
				cell(u.ResourcesID), strconv.FormatInt(u.Version, 10), timeCell(&u.CreateTime), timeCell(&u.UpdateTime),
				cell(strings.Join(names, ", ")),
			}
		},
	}
	return &cli.Command{
		Name: "resources", Usage: "list resources, show or add some",
		Flags: flags([]cli.Flag{storeURLFlag(), jsonFlag()}, local([]cli.Flag{
			&cli.StringFlag{Name: "id-contains", Usage: "only those whose id contains `TEXT`"},
		}, pagingFlags(queue.ResourcesSorts))),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			q := queue.ResourcesQuery{IDContains: textPointer(cmd, "id-contains")}
			var err error
			if q.Paging, err = paging(cmd); err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				page, err := s.QueryResources(ctx, q)
				if err != nil {
					return err
				}
				return list.print(a, cmd, page)
			})
		}),
		Commands: []*cli.Command{a.showCommand("RESOURCES_ID|latest", a.showResources), a.addResourcesCommand(), a.promoteCommand()},
	}
}

func (a *app) showResources(ctx context.Context, cmd *cli.Command, s *client.Client, id string) error {
	var u *queue.ResourcesUpdate
	var err error
	if id == "latest" {
		u, err = s.LatestResources(ctx)
	} else {
		u, err = s.Resources(ctx, id)
	}
	if err != nil {
		return err
	}
	if u == nil {
		return queue.Errorf(queue.NotFound, "resources %s not found", id)
	}
	return a.show(cmd, u.AppendJSON(nil))
}

func (a *app) addResourcesCommand() *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "store the resources in a JSON file, print their id", ArgsUsage: "FILE",
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			path, err := oneArg(cmd, "FILE")
			if err != nil {
				return err
			}
			resources, err := readObject(path)
			if err != nil {
				return err
			}
			return a.withStore(cmd, func(s *client.Client) error {
				u, err := s.AddResources(ctx, resources)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(a.stdout, u.ResourcesID)
				return err
			})
		}),
	}
}
